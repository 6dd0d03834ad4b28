"""``appliance update``: see, fetch, apply and undo versions of this appliance."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from appliance.cli.parser import a_duration

_VERBS = {
    "status": "versions, slots, what is offered, what was done",
    "check": "ask the repository now",
    "download": "fetch and verify, apply later",
    "apply": "fetch, switch, and wait for the verdict; units keep running",
    "channel": "show the channel, or take another one from now on",
    "rollback": "go back to the version in the other slot, and deny this one",
    "explain": "every gate and how it stands",
    "history": "what was applied, rolled back, refused",
    "hold": "hold updates back for a while, with a reason",
    "unhold": "end a hold",
}
_EXAMPLES = """Examples:
  appliance update status
  appliance update check
  appliance update download
  appliance update apply
  appliance update apply --force 1.4.0     a version that was denied, or an older one
  appliance update channel beta            alpha, beta or stable; nothing older is taken
  appliance update channel stable --allow-downgrade
  appliance update apply --from /media/stick/repository.tar     verified as ever, without a network
  appliance update explain
  appliance update history
  appliance update rollback
  appliance update unhold
  appliance update hold --for 2h --why "the fair is on"
  appliance update apply --now             although the window is shut, or somebody holds updates back
  appliance update apply --product shop    a bundle of yours, see [[update.bundle]]
A unit holds updates back by a file: /run/appliance/update-hold.d/NAME, its text the reason, a line "for = 2h" how long.
Exit codes: 0 done, 1 failed or rolled back, 4 no such version, 5 refused, 6 not yet (a gate is shut), 7 busy."""
_POLL_SECONDS = 0.3
_SUCCESS = {"apply": "blessed", "rollback": "rolled back"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    parser.epilog = _EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, words in _VERBS.items():
        verb = verbs.add_parser(name, help=words, description=words)
        if name in ("download", "apply"):
            verb.add_argument("version", nargs="?", default="", metavar="VERSION", help="this one, not the newest")
        if name == "apply":
            verb.add_argument(
                "--from", dest="source", default="", metavar="DIR|FILE",
                help="take it from a copy of the repository, or one made by release export; no network is used",
            )  # fmt: skip
            verb.add_argument("--force", action="store_true", help="even if VERSION is denied or older")
            verb.add_argument("--now", action="store_true", help="although a window is shut or somebody holds updates")
            verb.add_argument("--dry-run", action="store_true", help="say what would be done, and which gate is shut")
        if name == "hold":
            verb.add_argument(
                "--for", dest="duration", type=a_duration, default="24h", metavar="DURATION", help="how long (24h)"
            )
            verb.add_argument("--why", required=True, metavar="TEXT", help="shown to whoever wonders")
            verb.add_argument("--name", default="", metavar="NAME", help="of this hold, if there are several")
        if name == "unhold":
            verb.add_argument("name", nargs="?", default="", metavar="NAME", help="only this one")
        verb.add_argument("--product", default="", metavar="NAME", help="a bundle; without it: this appliance")
        if name == "channel":
            verb.add_argument("channel", nargs="?", default="", metavar="CHANNEL", help="alpha, beta or stable")
            verb.add_argument("--settings", action="store_true", help="the channel of the settings file again")
            verb.add_argument("--allow-downgrade", action="store_true", help="take its newest, once, even if older")
        if name in ("download", "apply", "rollback"):
            verb.add_argument("--progress-fd", type=int, metavar="N", help="write JSON lines of what happens there")
        if name in ("apply", "rollback"):
            verb.add_argument("--no-wait", action="store_true", help="return when it has begun")
            verb.add_argument(
                "--timeout", type=a_duration, default="30m", metavar="DURATION", help="give up waiting (30m)"
            )


def run(args: argparse.Namespace) -> int:
    """``status`` when no verb is given."""
    from appliance.cli.client import call
    from appliance.cli.render import show

    verb = args.verb or "status"
    args.product = getattr(args, "product", "")
    query = _query(args)
    if verb == "status":
        show(args, call(args.layout, "GET", "/v1/update" + query), _status_text)
    elif verb == "explain":
        show(args, call(args.layout, "GET", "/v1/update/explain" + query), _explain_text)
    elif verb == "history":
        show(args, call(args.layout, "GET", "/v1/update/history" + query), _history_text)
    elif verb == "channel":
        return _channel(args)
    elif verb == "check":
        show(args, call(args.layout, "POST", "/v1/update/check", {"product": args.product}, timeout=330.0), _check_text)
    elif verb == "download":
        from appliance.cli.update_progress import Reporter, watched

        with watched(args, Reporter(args)):
            body = {"version": args.version, "product": args.product}
            picture = call(args.layout, "POST", "/v1/update/download", body, timeout=7 * 3600.0)
        show(args, picture, _offer_text)
    elif verb in ("hold", "unhold"):
        body = {"name": args.name, "product": args.product}
        if verb == "hold":
            body |= {"duration": args.duration, "why": args.why}
        show(args, call(args.layout, "POST", f"/v1/update/{verb}", body), _holds_text)
    elif verb == "apply" and args.dry_run:
        return _dry_run(args)
    else:
        return _begin(args, verb)
    return 0


def _query(args: argparse.Namespace) -> str:
    from urllib.parse import urlencode

    return f"?{urlencode({'product': args.product})}" if args.product else ""


def _dry_run(args: argparse.Namespace) -> int:
    """What apply would do: the repository is asked, nothing else happens."""
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.errors import NotYetError

    picture = call(args.layout, "POST", "/v1/update/check", {"product": args.product}, timeout=330.0)
    gates = call(args.layout, "GET", "/v1/update/explain" + _query(args))
    passed = {"loop", "users", "strategy", "services", "attempt", *(("hold", "window") if args.now else ())}
    shut = [one for one in gates if not one["open"] and one["name"] not in passed]
    offer = picture.get("available")
    lines = [f"{picture['version']} -> {offer['version']}" if offer else str(picture["reason"] or "nothing new")]
    for one in shut if offer else ():
        until = f", until {one['opens']}" if one["opens"] and one["opens"] not in one["reason"] else ""
        lines.append(f"shut: {one['name']}: {one['reason']}{until}")
    lines.append("a dry run: nothing was changed")
    answer = {"from_version": picture["version"], "available": offer, "shut": shut}
    show(args, answer, lambda _: "\n".join(lines))
    return NotYetError.exit_code if offer and shut else 0


def _holds_text(picture: dict[str, Any]) -> str:
    lines = [f"held by {one['name']} until {one['until']}: {one['why']}" for one in picture["holds"]]
    return "\n".join(lines) or "nobody holds updates back"


def _channel(args: argparse.Namespace) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.errors import InputError

    if args.channel and args.settings:
        raise InputError("cannot switch channels: say a channel or --settings, not both")
    if not args.channel and not args.settings:
        if args.allow_downgrade:
            raise InputError("cannot allow a downgrade: say to which channel")
        show(args, call(args.layout, "GET", "/v1/update" + _query(args)), lambda picture: str(picture["channel"]))
        return 0
    body = {"channel": args.channel, "allow_downgrade": args.allow_downgrade, "product": args.product}
    picture = call(args.layout, "POST", "/v1/update/channel", body, timeout=330.0)
    show(args, picture, lambda picture: f"follows {picture['channel']} now: {_offer_text(picture)}")
    return 0


def _begin(args: argparse.Namespace, verb: str) -> int:
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.errors import NotFoundError
    from appliance.schema import parse_duration

    seconds = parse_duration(args.timeout)
    body: dict[str, Any] = {"product": args.product}
    if verb == "apply":
        source = os.path.abspath(args.source) if args.source else ""
        if source and not os.path.exists(source):
            raise NotFoundError(f"cannot apply from {source}: there is no such file or directory", where=source)
        body |= {"version": args.version, "force": args.force, "source": source, "now": args.now}
    picture = call(args.layout, "POST", f"/v1/update/{verb}", body)
    if args.no_wait:
        show(args, picture, lambda _: f"begun, id {picture['request']}; see `appliance update status`")
        return 0
    entry = _wait(args, picture["request"], seconds)
    show(args, entry, _entry_text)
    return _exit_code(verb, entry)


def _exit_code(verb: str, entry: dict[str, Any]) -> int:
    from appliance import errors

    if entry["outcome"] in (_SUCCESS[verb], "nothing new"):
        return 0
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ApplianceError) and kind.kind == entry.get("kind"):
            return kind.exit_code
    return 1


def _wait(args: argparse.Namespace, request: str, seconds: float) -> dict[str, Any]:
    """The history's entry of that request. The daemon is replaced on the way: a lost connection is no error."""
    from appliance.cli.client import call
    from appliance.cli.update_progress import Reporter
    from appliance.errors import ApplianceError, NotYetError, UnavailableError

    query = _query(args)
    deadline, lost, reporter = time.monotonic() + seconds, "", Reporter(args)
    while time.monotonic() < deadline:
        try:
            picture = call(args.layout, "GET", "/v1/update" + query, timeout=10.0)
            for entry in call(args.layout, "GET", "/v1/update/history" + query, timeout=10.0):
                if entry["id"] == request:
                    reporter.end({"event": "end", **entry})
                    return dict(entry)
            lost = ""
            reporter.report(picture)
        except UnavailableError as exc:
            lost = exc.message
            reporter.say("the appliance is being replaced", {"event": "replacing"})
        except ApplianceError as exc:
            lost = exc.message
            reporter.say(lost, {"event": "trouble", "message": lost})
        time.sleep(_POLL_SECONDS)
    raise NotYetError(f"cannot tell how the update ends: no verdict in {args.timeout}{f' ({lost})' if lost else ''}")


def _status_text(picture: dict[str, Any]) -> str:
    from appliance.cli.render import size, state, table

    offer = picture.get("available")
    lines = [
        f"version   {picture['version']} (slot {picture['slot']}{', on trial' if picture['trial'] else ''})",
        f"state     {state(picture['state'])}" + ("" if picture["enabled"] else "  (updates are off)"),
        f"channel   {picture['channel']} of {picture['repository'] or 'no repository'}, {picture['strategy']}",
    ]
    if progress := picture.get("progress"):
        from appliance.cli.update_progress import progress_text

        lines.append("download  " + progress_text(progress))
    if picture["waiting"]:
        opens = f", opens at {picture['opens']}" if picture["opens"] else ""
        lines.append(f"waits     {picture['waiting']}{opens}")
    lines += [f"held      {one['name']}: {one['why']} (until {one['until']})" for one in picture["holds"]]
    if window := picture.get("window"):
        said = f"open until {window['until']}" if window["open"] else f"next opens {window['opens'] or 'never'}"
        lines.append(f"window    {said}")
    if picture["reason"]:
        lines.append(f"reason    {picture['reason']}")
    if picture.get("last_error"):
        times = f"{picture['failures']} times in a row, lastly " if picture["failures"] > 1 else ""
        retry = f", tried again at {picture['next_check']}" if picture["next_check"] else ""
        lines.append(f"failed    {times}at {picture['last_failure'] or 'the start'}{retry}")
    if picture["health"]:
        lines.append("missing   " + "; ".join(picture["health"]))
    if offer and offer["version"] != picture["version"]:
        lines.append(f"offered   {offer['version']} ({size(offer['size'])}) {offer['notes']}".rstrip())
    if picture["denied"]:
        lines.append("denied    " + ", ".join(picture["denied"]))
    checks = [f"last {picture['last_check']}"] if picture["last_check"] else []
    checks += [f"next {picture['next_check']}"] if picture["next_check"] else []
    if checks:
        lines.append("checks    " + ", ".join(checks))
    rows: list[tuple[str, ...]] = [
        (one["name"], one["version"], ", ".join(filter(None, ("running" if one["running"] else "",
         "blessed" if one["blessed"] else f"trial, {one['tries']} tries left" if one["priority"]
         else "denied" if one["version"] and one["version"] in picture["denied"] else ""))))
        for one in picture["slots"]
    ]  # fmt: skip
    header: tuple[str, ...] = ("slot", "version", "state")
    if any(one.get("entry") for one in picture["slots"]):  # an OS of ours: what the boot loader and dm-verity go by
        header = (*header, "tries left", "boot entry", "root hash")
        rows = [
            (*row, str(one["tries"]) if one["entry"] else "", one["entry"], one["verity"])
            for row, one in zip(rows, picture["slots"], strict=True)
        ]
    lines += ["", table(header, rows)]
    if picture["recent"]:
        lines += ["", _history_text(picture["recent"])]
    return "\n".join(lines)


def _offer_text(picture: dict[str, Any]) -> str:
    from appliance.cli.render import size

    offer = picture.get("available")
    if offer is None:
        return str(picture["reason"] or "nothing new")
    here = " (fetched and verified)" if picture["state"] == "downloaded" else ""
    return f"{offer['version']} ({size(offer['size'])}){here}" + (f"\n{offer['notes']}" if offer["notes"] else "")


def _check_text(picture: dict[str, Any]) -> str:
    """With what to do about it."""
    text = _offer_text(picture)
    if picture.get("available") is None:
        return text
    product = f" --product {picture['product']}" if picture["product"] != "appliance" else ""
    itself = "" if picture["strategy"] == "manual" else " (or it is taken by itself: appliance update explain)"
    return f"{text}\ntake it with: appliance update apply{product}{itself}"


def _explain_text(gates: list[dict[str, Any]]) -> str:
    from appliance.cli.render import paint, table

    words = {True: paint("open", "green"), False: paint("shut", "red")}
    rows = [(one["name"], words[one["open"]], one["reason"], one.get("opens", "")) for one in gates]
    return table(("gate", "state", "why", "opens"), rows)


def _history_text(entries: list[dict[str, Any]]) -> str:
    from appliance.cli.render import size, state, table

    if not entries:
        return "nothing was updated yet"
    rows = [
        (one["time"], one["from_version"], one["to_version"], state(one["outcome"]),
         size(one["size"]) if one.get("size") else "", size(one["fetched"]) if one.get("fetched") else "",
         f"{one['seconds']:g} s" if one.get("seconds") else "", one.get("by", ""),
         f"{one['reason']}{' (' + str(one['count']) + ' times)' if one['count'] > 1 else ''}")
        for one in entries
    ]  # fmt: skip
    return table(("time", "from", "to", "outcome", "size", "fetched", "took", "by", "reason"), rows)


def _entry_text(entry: dict[str, Any]) -> str:
    before = entry["from_version"] or "nothing"
    way = f"{before} -> {entry['to_version']}" if entry["to_version"] else before
    text = f"{way}: {entry['outcome']}" + (f": {entry['reason']}" if entry["reason"] else "")
    if entry["outcome"] == "not yet" and any(f" {gate}: " in entry["reason"] for gate in ("hold", "window")):
        text += "\nall the same, now: appliance update apply --now"
    return text
