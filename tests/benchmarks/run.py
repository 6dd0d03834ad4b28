"""Prints every benchmark as one table of ratios against its peer in the same run.

    ./build.sh bench [--long] [NAME ...]

NAMEs: start, units, adoption, store, etcd, check, update, boot; all of them when none is given.

Each bench_NAME.py has ``run(binary) -> list[Row]``. Nothing here asserts a time: figures are for people to read.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.row import Row

NAMES = ("start", "units", "adoption", "store", "etcd", "check", "update", "boot")


def show(rows: list[Row]) -> None:
    headers = ("benchmark", "ours", "peer", "peer's", "ratio", "aim")
    cells = [headers, *((row.name, row.ours_text, row.peer, row.theirs_text, row.ratio_text, row.aim) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headers))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def main(argv: list[str]) -> int:
    binary = os.environ.get("APPLIANCE_BINARY", str(Path(__file__).parents[2] / "dist" / "appliance"))
    if "--long" in argv:
        os.environ["APPLIANCE_BENCH_LONG"] = "1"
        argv = [word for word in argv if word != "--long"]
    unknown = set(argv) - set(NAMES)
    if unknown:
        print(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in argv or (name for name in NAMES if name != "check"):  # update runs it
        print(f"# {name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"tests.benchmarks.bench_{name}").run(binary)
    show(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
