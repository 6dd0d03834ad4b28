#!/bin/sh
# Remakes packaging/requirements.lock, every package with its hashes, from pyproject.toml.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
tools=.build/lock-tools
[ -x $tools/bin/uv ] || { /usr/bin/python3 -m venv $tools && $tools/bin/pip install -q uv; }
exec $tools/bin/uv pip compile -q --python-version 3.11 --generate-hashes --extra dev pyproject.toml -o packaging/requirements.lock
