"""``appliance support``: one archive for a bug report, without secrets. Works with the appliance down, too."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict

from appliance.cli.redaction import redact, redact_unit
from appliance.errors import ApplianceError, NotFoundError
from appliance.host import files, node
from appliance.host.layout import Layout

_HOST_FILES = ("/proc/meminfo", "/proc/mounts", "/proc/self/cgroup", "/proc/loadavg", "/etc/os-release")
_ASKED = ("/v1/status", "/v1/services", "/v1/update/explain", "/v1/update/history", "/metrics")
_LOG_LINES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its own options."""
    parser.epilog = (
        "Look into the archive before you send it.\n\nExamples:\n  appliance support\n  appliance support --logs"
    )
    parser.add_argument("--to", metavar="FILE", help="where to write it, a file or a directory (default: here)")
    parser.add_argument(
        "--logs", action="store_true", help=f"with the last {_LOG_LINES} lines of each unit, as they are"
    )


def run(args: argparse.Namespace) -> int:
    """Gather and write."""
    from appliance.cli.render import show, size

    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"appliance-support-{node.hostname()}-{stamp}"
    path = _target(args.to, f"{name}.tar.gz")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, text in gather(args.layout, args.config, logs=args.logs):
            data = text.encode()
            info = tarfile.TarInfo(f"{name}/{member}")
            info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
            archive.addfile(info, io.BytesIO(data))
    files.write_atomic(path, buffer.getvalue(), mode=0o600)
    report = {"file": path, "size_bytes": len(buffer.getvalue())}
    show(args, report, lambda data: f"wrote {path} ({size(len(buffer.getvalue()))}): look into it before you send it")
    return 0


def _target(asked: str | None, name: str) -> str:
    """The file to write; a directory gets one of that name. Raises NotFoundError: nobody meant a new directory."""
    path = os.path.abspath(asked or name)
    if os.path.isdir(path):
        path = os.path.join(path, name)
    if not os.path.isdir(os.path.dirname(path)):
        raise NotFoundError(f"cannot write {path}: there is no such directory", where=path)
    return path


def gather(layout: Layout, config_file: str | None, *, logs: bool) -> Iterator[tuple[str, str]]:
    """Name and text of each member. What cannot be had says why, in its place."""
    from appliance.cli.checks import check_host
    from appliance.version import version

    release, machine = node.kernel()
    yield "version.txt", f"appliance {version()}\nLinux {release} {machine}\nroot {layout.root}\n"
    yield "doctor.json", redact(json.dumps([asdict(one) for one in check_host(layout, config_file)], indent=2)) + "\n"
    for path in _HOST_FILES:
        yield f"host{path}", redact(_text(path))
    yield from _settings(layout, config_file)
    yield from _units(layout, config_file)
    yield "state.txt", "".join(_listing(layout.state)) + "".join(_listing(layout.run))
    yield "slots/record.txt", _text(files.join(layout.slots, "record"))
    yield from _answers(layout, logs=logs)


def _settings(layout: Layout, config_file: str | None) -> Iterator[tuple[str, str]]:
    from appliance import settings

    loaded = settings.load(layout, config_file)
    yield "settings/findings.txt", redact("".join(f"{one}\n" for one in loaded.findings))
    for source in loaded.document.sources:
        yield f"settings/{os.path.basename(source.file)}", redact(source.text)


def _units(layout: Layout, config_file: str | None) -> Iterator[tuple[str, str]]:
    """With the drop-ins."""
    from appliance import settings

    value = settings.load(layout, config_file).value
    directory = (value.units.directory if value is not None else None) or layout.units
    for path in files.walk(directory):
        yield f"units/{os.path.relpath(path, directory)}", redact_unit(_text(path))


def _answers(layout: Layout, *, logs: bool) -> Iterator[tuple[str, str]]:
    from appliance.cli.client import call_raw

    def ask(path: str) -> str:
        try:
            return redact(call_raw(layout, "GET", path, timeout=10.0)[0].decode(errors="replace"))
        except ApplianceError as error:
            return f"{error}\n"

    for path in _ASKED:
        text = ask(path)
        yield f"api{path}", text if logs or path != "/v1/status" else _without_last_lines(text)
    if logs:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for one in json.loads(ask("/v1/status"))["units"]:
                yield f"logs/{one['name']}", ask(f"/v1/units/{one['name']}/logs?lines={_LOG_LINES}")


def _without_last_lines(text: str) -> str:
    """What units wrote goes with --logs only."""
    try:
        status = json.loads(text)
        for one in status["units"]:
            one.pop("last_lines", None)
    except (ValueError, KeyError, TypeError, AttributeError):
        return text  # an error's message
    return json.dumps(status) + "\n"


def _text(path: str) -> str:
    try:
        return files.read_bytes(path, size_max=1 << 20).decode(errors="replace")
    except ApplianceError as error:
        return f"{error}\n"


def _listing(top: str) -> Iterator[str]:
    for directory, inner, names in os.walk(top):
        inner.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                it = os.lstat(path)
                yield f"{it.st_mode:o} {it.st_uid} {it.st_gid} {it.st_size} {int(it.st_mtime)} {path}\n"
