"""One process behind the fences of a unit file, as the appliance starts it, and what it said."""

from __future__ import annotations

import os
import subprocess
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

from appliance.host.kernel import kernel
from appliance.units.fences import Fences
from appliance.units.unit_file import UnitDocument, parse_unit
from units.stage import spawn_program

FENCES = Fences(kernel(), frozenset)
NOT_ROOT = replace(FENCES, kernel=replace(kernel(), is_root=False))


def document(text: str) -> UnitDocument:
    parsed = parse_unit(f"[service]\ncommand = ['/bin/true']\n{textwrap.dedent(text)}", "web.toml")
    assert parsed.unit is not None, "\n".join(map(str, parsed.findings))
    return parsed.unit.document


@dataclass
class Said:
    code: int
    out: str
    err: str
    told: str  # through the report descriptor: the step that failed
    words: tuple[str, ...] = field(repr=False, default=())


def run(argv: list[str], words: tuple[str, ...], *, extra: tuple[str, ...] = ()) -> Said:
    report_read, report_write = os.pipe()
    program = spawn_program()
    shell = f'exec "$0" "$@" 3>&{report_write} {report_write}>&-'
    try:
        done = subprocess.run(
            ["/bin/bash", "-c", shell, program, *extra, *words, "--", *argv],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, pass_fds=(report_write,),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}, errors="replace",
        )  # fmt: skip
    finally:
        os.close(report_write)
    with os.fdopen(report_read) as report:
        return Said(done.returncode, done.stdout, done.stderr, report.read(), words)


def fenced(text: str, script: str, *, user: int | None = None, fences: Fences = FENCES) -> Said:
    """``text``: tables of the unit file; ``script``: for sh. ``user``: a number to become."""
    extra = ("--uid", str(user), "--gid", str(user), "--groups", "") if user is not None else ()
    return run(["/bin/sh", "-c", script], fences.spawn_words(document(text)), extra=extra)


def python(text: str, script: str, **more: object) -> Said:
    """As ``fenced``, with a Python script (Debian's own: it lies in /usr)."""
    path = Path("/usr/bin/python3")
    user = more.get("user")
    extra = ("--uid", str(user), "--gid", str(user), "--groups", "") if user is not None else ()
    return run([str(path), "-I", "-c", textwrap.dedent(script)], FENCES.spawn_words(document(text)), extra=extra)
