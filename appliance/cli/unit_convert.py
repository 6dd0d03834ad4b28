"""``appliance unit convert``: files of systemd as files of ours."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

from appliance.errors import ConflictError, InputError


def add_convert(verb: argparse.ArgumentParser) -> None:
    """Its arguments."""
    verb.add_argument("files", nargs="+", metavar="FILE", help="such as web.service; its drop-ins are read too")
    verb.add_argument("--write", action="store_true", help="write NAME.toml into the units directory")
    verb.add_argument("--force", action="store_true", help="with --write: replace a file that is there")


def run_convert(args: argparse.Namespace, directory: str) -> int:
    """0, or 2 when one of them is not valid (then nothing of it is written)."""
    from appliance.host import files
    from appliance.systemd import kind_of
    from appliance.units import converted_text

    made = []
    for path in args.files:
        if not kind_of(os.path.basename(path)):
            raise InputError(
                f"cannot convert {path}: expected a .service, .timer, .socket, .path or .target", where=path
            )
        made.append((path, *converted_text(os.path.abspath(path))))
    code = 0
    told = []
    for path, name, text, findings in made:
        is_bad = any(one.severity == "error" for one in findings)
        told.append({"file": path, "unit": name, "text": text, "findings": [asdict(one) for one in findings]})
        for finding in findings:
            print(finding, file=sys.stderr)
        if is_bad:
            code = 2
        if not args.write:
            if args.output == "table":
                print(text, end="" if len(made) == 1 else "\n")
            continue
        if is_bad:
            print(f"appliance: {path} was not converted", file=sys.stderr)
            continue
        to = f"{directory}/{name}.toml"
        if os.path.exists(to) and not args.force:
            raise ConflictError(f"cannot write {to}: it is there already (--force replaces it)", where=to)
        files.write_atomic(to, text.encode())
        told[-1]["written"] = to
        if args.output == "json":
            continue
        print(f"{to}: written; `appliance unit reload` applies it")
        if os.path.dirname(os.path.abspath(path)) == os.path.abspath(directory):
            print(f"{path}: not read any more, for there is {name}.toml; remove it")
    if args.output == "json":
        print(json.dumps(told, indent=2, ensure_ascii=False))
    return code
