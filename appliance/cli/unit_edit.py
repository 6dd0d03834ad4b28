"""``appliance unit edit NAME``: a copy in the editor, checked before it is saved."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from appliance.errors import ConflictError, InputError, NotFoundError

_SIZE_MAX = 1 << 20
_EXAMPLES = """Examples:
  appliance unit edit web
  appliance unit edit --drop-in web
  sed s/80/81/ web.toml | appliance unit edit --stdin web"""


def add_edit(verb: argparse.ArgumentParser) -> None:
    """Its arguments."""
    verb.epilog = _EXAMPLES
    verb.add_argument("name", metavar="NAME")
    kind = verb.add_mutually_exclusive_group()
    kind.add_argument("--full", action="store_true", help="the unit's own file (this is what happens anyway)")
    kind.add_argument("--drop-in", action="store_true", help="NAME.toml.d/override.toml, which changes the file")
    verb.add_argument("--stdin", action="store_true", help="the new text comes from standard input")


def run_edit(args: argparse.Namespace, directory: str) -> int:
    """0 when it was saved or nothing changed; 2 when the text is not valid and was given up."""
    from appliance.units import file_to_edit, read_unit_files

    name = args.name.removesuffix(".service") or args.name
    path = file_to_edit(directory, name, drop_in=args.drop_in)
    main = file_to_edit(directory, name, drop_in=False)
    if args.drop_in and not os.path.exists(main) and name not in read_unit_files(directory, (name,)).units:
        raise NotFoundError(f"cannot edit {name}: no file {main}", where=directory)
    before = _read(path)
    if args.stdin:
        text = sys.stdin.buffer.read(_SIZE_MAX + 1).decode(errors="strict")
        return _save(args, directory, name, path, text, before)
    text = before.decode(errors="replace")
    while True:
        text = _edited(text, name)
        if text.encode() == before:
            print(f"{name}: not changed")
            return 0
        code = _save(args, directory, name, path, text, before)
        if code == 0 or not sys.stdin.isatty():
            return code
        if input("Edit again? [Y/n] ").strip().lower() in ("n", "no"):
            return code


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_SIZE_MAX)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}", where=path) from exc


def _edited(text: str, name: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    if editor == "vi" and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(f"cannot edit {name}: this is not a terminal; use --stdin, or set EDITOR")
    with tempfile.TemporaryDirectory(prefix="appliance-") as directory:
        copy = os.path.join(directory, f"{name}.toml")
        with open(copy, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            code = subprocess.run([*shlex.split(editor), copy], check=False).returncode
        except (OSError, ValueError) as exc:
            raise InputError(f"cannot run the editor {editor}: {exc}; set EDITOR") from exc
        if code != 0:
            raise InputError(f"cannot edit {name}: {editor} ended with code {code}; nothing was saved")
        with open(copy, "rb") as file:
            return file.read(_SIZE_MAX).decode(errors="replace")


def _save(args: argparse.Namespace, directory: str, name: str, path: str, text: str, before: bytes) -> int:
    from appliance.host import files
    from appliance.units import check_unit_text

    findings: Sequence[Any] = check_unit_text(directory, name, text, drop_in=args.drop_in)
    for one in findings:
        print(one, file=sys.stderr)
    if any(one.severity == "error" for one in findings):
        print(f"appliance: {path} was not saved", file=sys.stderr)
        return 2
    if sha256(_read(path)).digest() != sha256(before).digest():
        raise ConflictError(f"cannot save {path}: it was changed meanwhile", where=path)
    files.write_atomic(path, text.encode())
    print(f"{path}: saved; `appliance unit reload` applies it")
    return 0
