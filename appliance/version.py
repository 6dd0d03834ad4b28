"""Which version this is: the file VERSION of the bundle, or pyproject.toml when run from source.

It opens a file by itself, and imports nothing, so that ``appliance --version`` costs no more than starting Python.
"""

from __future__ import annotations

import sys

SCHEMA = 1  # of the data; a new number comes with a migration (update/migrations.py)


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


def built_seconds() -> float:
    """When this version was made (seconds since 1970): it is later than that now, whatever the clock says."""
    if directory := getattr(sys, "_MEIPASS", ""):
        try:
            with open(directory + "/../BUILT") as file:
                return float(file.read())
        except (OSError, ValueError):  # packed by something else
            return 0.0
    from datetime import datetime

    with open(__file__.removesuffix("appliance/version.py") + "pyproject.toml") as file:
        for line in file:
            if line.startswith("released = "):
                return datetime.fromisoformat(line.split('"')[1] + "T00:00:00+00:00").timestamp()
    raise AssertionError("pyproject.toml does not say when it was released")
