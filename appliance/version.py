"""Which version this is: the file VERSION of the bundle, or pyproject.toml when run from source.

It opens a file by itself, and imports nothing, so that ``appliance --version`` costs no more than starting Python.
"""

from __future__ import annotations

import sys


def version() -> str:
    """As released, for example "1.0.0"."""
    if directory := getattr(sys, "_MEIPASS", ""):
        with open(directory + "/../VERSION") as file:
            return file.read().strip()
    with open(__file__.removesuffix("appliance/version.py") + "pyproject.toml") as file:
        for line in file:
            if line.startswith("version = "):
                return line.split('"')[1]
    raise AssertionError("pyproject.toml has no version")
