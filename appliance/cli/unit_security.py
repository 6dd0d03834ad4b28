"""``appliance unit security [NAME]...``: how exposed units are, from their files, without a daemon."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

_COLOURS = {"perfect": "green", "safe": "green", "ok": "green", "medium": "yellow"}


def run(args: argparse.Namespace, directory: str) -> int:
    """One name: every row; several, or none (all units): a line for each."""
    from appliance.cli.render import show
    from appliance.errors import NotFoundError
    from appliance.units import assess, read_unit_files

    found = read_unit_files(directory)
    names = list(dict.fromkeys(args.names)) or sorted(name for name, unit in found.units.items() if unit.has_process)
    for name in names:
        if name not in found.units:
            raise NotFoundError(f"cannot find unit {name}: no file of {directory} declares it", where=directory)
    results = [assess(name, found.units[name].document) for name in names]
    plain = [{**asdict(one), "rows": [{**asdict(row), "mark": row.mark} for row in one.rows]} for one in results]
    if len(args.names) == 1:
        show(args, plain[0], _one)
    else:
        show(args, [{key: one[key] for key in ("unit", "exposure", "word")} for one in plain], _many)
    return 0


def _one(result: dict[str, Any]) -> str:
    from appliance.cli.render import paint, table

    signs = {"ok": paint("+", "green"), "bad": paint("-", "red"), "n/a": " "}
    rows = [
        (
            signs[row["mark"]],
            row["setting"],
            row["state"],
            row["weight"],
            f"{row['exposure']:.1f}" * bool(row["badness"]),
        )
        for row in result["rows"]
    ]
    whole = paint(result["word"], _COLOURS.get(result["word"], "red"))
    text = table(("", "setting", "state", "weight", "exposure"), rows)
    return f"{text}\noverall exposure of {result['unit']}: {result['exposure']:.1f} {whole}"


def _many(results: list[dict[str, Any]]) -> str:
    from appliance.cli.render import paint, table

    rows = [
        (one["unit"], f"{one['exposure']:.1f}", paint(one["word"], _COLOURS.get(one["word"], "red"))) for one in results
    ]
    return table(("unit", "exposure", ""), rows) if rows else "no units"
