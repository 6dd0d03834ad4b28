"""``appliance logs`` and ``appliance unit logs``: what units and the kernel wrote, from the node, or from its files."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from appliance.errors import InputError, NotRunningError

_LINES = 100
_COLOURS = {0: "red", 1: "red", 2: "red", 3: "red", 4: "yellow", 5: "bold", 7: "grey"}
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
EXAMPLES = """Output (-o):
  iso    with times in UTC (the default)   json  an object per line; what is JSON itself in "fields"
  short  with local times                  cat   as it was written, byte for byte
  journal  as `journalctl -o json`: MESSAGE, PRIORITY, _SYSTEMD_UNIT, __REALTIME_TIMESTAMP, ...

Examples:
  appliance logs -f
  appliance logs --since today --priority warning
  appliance unit logs web db -n 50
  appliance unit logs --all --since "10m ago" --grep "timeout|refused"
  appliance unit logs web --where level=error -o json
  appliance unit logs kernel"""


def add_logs(parser: argparse.ArgumentParser, *, of_host: bool = False) -> None:
    """The options of both."""
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help='units, as web or "web*"; kernel is what it says itself'
    )
    if not of_host:
        parser.add_argument(
            "-a", "--all", action="store_true", help="of all units; with a NAME, every line that is kept"
        )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    parser.add_argument("-n", "--lines", default="", metavar="COUNT", help=f'the last so many ({_LINES}), or "all"')
    parser.add_argument(
        "-S", "--since", default="", metavar="WHEN", help='such as "10m ago", today, yesterday, "2026-11-22 07:45"'
    )
    parser.add_argument("-U", "--until", default="", metavar="WHEN", help="the same words")
    parser.add_argument("-g", "--grep", default="", metavar="REGEX", help="only lines in which that is found")
    parser.add_argument("-i", "--ignore-case", action="store_true", help="grep in whatever case")
    parser.add_argument("-v", "--invert-match", action="store_true", help="only lines in which it is not found")
    parser.add_argument(
        "-w", "--where", action="append", default=[], metavar="KEY=VALUE",
        help="only lines that are JSON objects with such a field; also != < <= > >=, and a.b for inner ones",
    )  # fmt: skip
    parser.add_argument(
        "--invocation", default="", metavar="ID", help="only of that start of the unit; 0 is the last, -1 that before"
    )
    parser.add_argument("--stream", choices=("stdout", "stderr"), default="", help="only that, where it is told apart")
    parser.add_argument(
        "-p", "--priority", default="", metavar="LEVEL", help="at least as urgent: 0 to 7, err, warning"
    )
    parser.epilog = EXAMPLES


def run_logs(args: argparse.Namespace) -> int:
    """Print them, as they come."""
    if not args.names and not getattr(args, "all", True):
        raise InputError("cannot show logs: name units, or say --all")
    mode = "iso" if args.output == "table" else args.output
    try:
        pattern = re.compile(args.grep, re.IGNORECASE if args.ignore_case else 0) if args.grep else None
    except re.error as exc:
        raise InputError(f"cannot read --grep: {exc}") from None
    try:
        if mode == "cat":
            _print_raw(args, pattern)
        else:
            _print(args, pattern, mode)
    except KeyboardInterrupt:
        return 130 if not args.follow else 0
    return 0


def _print(args: argparse.Namespace, pattern: re.Pattern[str] | None, mode: str) -> None:
    many = len(args.names) != 1 or any(sign in args.names[0] for sign in "*?[")
    show = _shower(mode, many=many)
    for line in _wanted(args, pattern):
        sys.stdout.write(show(line))
        if args.follow:
            sys.stdout.flush()


def _wanted(args: argparse.Namespace, pattern: re.Pattern[str] | None) -> Iterator[dict[str, Any]]:
    """The regular expression is ours to try: the node has better things to do."""
    lines = _source(args, by_ourselves=pattern is not None)
    if pattern is None:
        yield from lines
        return
    count = _count(args)
    kept: deque[dict[str, Any]] = deque(maxlen=count)
    waits = count is not None  # until all that is there was told, nobody knows which are the last
    for line in lines:
        if "caught_up" in line:
            yield from kept
            waits = False
        elif (pattern.search(line["text"]) is not None) is not args.invert_match:
            if waits:
                kept.append(line)
            else:
                yield line
    if waits:
        yield from kept


def _count(args: argparse.Namespace) -> int | None:
    """How many lines at most; None: all."""
    every = args.since or args.until or (args.names and getattr(args, "all", False))
    if args.lines == "all" or (not args.lines and every):
        return None
    if not args.lines:
        return _LINES
    if not args.lines.isdecimal():
        raise InputError(f'cannot read --lines: found "{args.lines}", expected a number or "all"')
    return min(int(args.lines), 1_000_000)


def _query(args: argparse.Namespace, *, by_ourselves: bool) -> dict[str, str]:
    import time

    from appliance.schema import parse_moment

    count = _count(args)
    query = {"lines": "all" if count is None or by_ourselves else str(count)}
    for key in ("since", "until"):  # days are those of whoever asks
        if text := getattr(args, key):
            try:
                query[key] = f"{parse_moment(text, time.time()):.3f}"
            except InputError as exc:
                raise InputError(f"cannot read --{key}: {exc.message}") from None
    if args.follow:
        query |= {"follow": "1", "mark": "1"} if by_ourselves else {"follow": "1"}
    if args.where:
        query["where"] = ",".join(args.where)
    for key in ("priority", "stream", "invocation"):
        if text := getattr(args, key):
            query[key] = text
    return query


def _path(args: argparse.Namespace, *, by_ourselves: bool) -> str:
    from urllib.parse import quote, urlencode

    query = _query(args, by_ourselves=by_ourselves)
    if len(args.names) == 1:
        return f"/v1/units/{quote(args.names[0], safe='')}/logs?{urlencode(query)}"
    return f"/v1/logs?{urlencode(query | ({'units': ','.join(args.names)} if args.names else {}))}"


def _source(args: argparse.Namespace, *, by_ourselves: bool) -> Iterable[dict[str, Any]]:
    from appliance.cli.client import stream

    path = _path(args, by_ourselves=by_ourselves)
    try:
        for line in stream(args.layout, path, timeout=None if args.follow else 60.0):
            yield json.loads(line)
    except NotRunningError:
        if args.follow:
            raise
        from dataclasses import asdict

        yield from (asdict(entry.line()) for entry in _from_files(args, by_ourselves=by_ourselves))


def _print_raw(args: argparse.Namespace, pattern: re.Pattern[str] | None) -> None:
    """The bytes that were written; only to a terminal they go without what would drive it."""
    from appliance.cli.client import stream_bytes

    if pattern is not None or sys.stdout.isatty():
        for line in _wanted(args, pattern):
            sys.stdout.write(f"{_safe(line['text']) if sys.stdout.isatty() else line['text']}\n")
            sys.stdout.flush()
        return
    path = _path(args, by_ourselves=False)
    try:
        pieces: Iterable[bytes] = stream_bytes(
            args.layout, path, timeout=None if args.follow else 60.0, headers={"Accept": "application/octet-stream"}
        )
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            if args.follow:
                sys.stdout.buffer.flush()
    except NotRunningError:
        if args.follow:
            raise
        for entry in _from_files(args, by_ourselves=False):
            sys.stdout.buffer.write(entry.written + b"\n")
    sys.stdout.buffer.flush()


def _from_files(args: argparse.Namespace, *, by_ourselves: bool) -> Iterator[Any]:
    """No node runs: what it left can be read all the same, by whoever may."""
    from appliance.schema import parse_moment
    from appliance.units import LogQuery, parse_clause, parse_priority, read_log_files

    asked = _query(args, by_ourselves=by_ourselves)
    query = LogQuery(
        lines=None if asked["lines"] == "all" else int(asked["lines"]),
        since=_stamp(parse_moment(asked["since"], 0.0)) if "since" in asked else "",
        until=_stamp(parse_moment(asked["until"], 0.0)) if "until" in asked else "",
        where=tuple(parse_clause(one) for one in args.where),
        priority=parse_priority(args.priority) if args.priority else None,
        stream=args.stream,
        invocation=args.invocation,
    )
    print("appliance: not running; these are the logs that it left", file=sys.stderr)
    return read_log_files(args.layout.journal, args.names, query)


def _stamp(seconds: float) -> str:
    from appliance.host import clock

    return clock.timestamp(seconds)


# -- showing --------------------------------------------------------------------------------------------------------


def _shower(mode: str, *, many: bool) -> Callable[[dict[str, Any]], str]:
    if mode == "json":
        return _as_json
    if mode == "journal":
        return _Journald()
    from appliance.cli.render import paint

    moment = _Local() if mode == "short" else str

    def show(line: dict[str, Any]) -> str:
        text = _safe(line["text"])
        priority = line.get("priority")
        colour = _COLOURS.get(6 if priority is None else priority)
        name = f"{line['unit']}: " if many else ""
        return f"{moment(line['time'])} {name}{paint(text, colour) if colour else text}\n"

    return show


def _as_json(line: dict[str, Any]) -> str:
    """One object on one line; what the unit wrote as JSON stands in ``fields``."""
    text = line["text"]
    if text[:1] == "{":
        from appliance.units import fields_of

        if (fields := fields_of(text)) is not None:
            line = {**line, "fields": fields}
    return json.dumps(line, ensure_ascii=False) + "\n"


class _Journald:
    """In the words of systemd.journal-fields(7), for what reads `journalctl -o json`; all values are strings there."""

    def __init__(self) -> None:
        from appliance.host import node

        self._host = node.hostname()

    def __call__(self, line: dict[str, Any]) -> str:
        from datetime import datetime

        unit, kernel = line["unit"], line["unit"] == "kernel"
        moment = datetime.fromisoformat(line["time"]).timestamp() if line["time"] else 0.0
        fields = {
            "__REALTIME_TIMESTAMP": str(round(moment * 1e6)),
            "_HOSTNAME": self._host,
            "_TRANSPORT": "kernel" if kernel else "stdout",
            "PRIORITY": str(6 if line.get("priority") is None else line["priority"]),
            "SYSLOG_IDENTIFIER": unit,
            "MESSAGE": line["text"],
        }
        if not kernel:
            fields["_SYSTEMD_UNIT"] = unit if "." in unit else f"{unit}.service"
        if line.get("invocation"):
            fields["_SYSTEMD_INVOCATION_ID"] = line["invocation"]
        if line.get("stream"):
            fields["STREAM"] = line["stream"]
        return json.dumps(fields, ensure_ascii=False) + "\n"


def _safe(text: str) -> str:
    """What drives a terminal as its hex; a tab stays."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Local:
    """``2026-11-22T07:45:01.123Z`` as ``Nov 22 08:45:01.123`` where the reader is."""

    def __init__(self) -> None:
        self._minute = ""
        self._shown = ""

    def __call__(self, time: str) -> str:
        from datetime import datetime

        if len(time) < 24:
            return time or "-"
        if time[:16] != self._minute:  # no zone differs from UTC by parts of a minute
            self._minute = time[:16]
            self._shown = datetime.fromisoformat(f"{time[:16]}:00+00:00").astimezone().strftime("%b %d %H:%M")
        return f"{self._shown}{time[16:23]}"
