#!/bin/sh
# Remake appliance/etcdapi/pb from the .proto files here. Run it after a change to one; the result is committed.
# grpcio-tools is used from its own venv: nothing else of the build needs it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
venv="$top/.build/protoc"
[ -x "$venv/bin/python" ] || { /usr/bin/python3 -m venv "$venv" && "$venv/bin/pip" install -q "grpcio-tools==1.85.1"; }
cd "$top"
"$venv/bin/python" -m grpc_tools.protoc -I "appliance/etcdapi/pb=packaging/proto" --python_out=. --pyi_out=. \
    appliance/etcdapi/pb/auth.proto appliance/etcdapi/pb/kv.proto appliance/etcdapi/pb/rpc.proto \
    appliance/etcdapi/pb/v3lock.proto appliance/etcdapi/pb/v3election.proto
