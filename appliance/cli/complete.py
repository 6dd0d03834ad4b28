"""``appliance complete -- WORDS``: what may stand in place of the last word. For the completion scripts; hidden."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

from appliance.cli import NOUNS, load_noun, set_globals, split_globals
from appliance.errors import ApplianceError

_GLOBALS = ("--root", "--config", "-o", "--help")
_TAKE_VALUE = {"--root", "--config", "-o", "--output"}
_UNIT_WORDS = {"unit", "units", "name", "names"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The line so far."""
    parser.add_argument("words", nargs="*")


def run(args: argparse.Namespace) -> int:
    """Print one candidate a line; nothing when there is none (a file name, then)."""
    for one in candidates(args.words):
        print(one)
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Those that start with the last word."""
    *before, last = words or [""]
    if before and before[-1] in ("-o", "--output"):
        formats = ("table", "json", *(("short", "iso", "cat") if "logs" in before[:-1] else ()))
        return [one for one in formats if one.startswith(last)]
    if before and before[-1] in _TAKE_VALUE:
        return []
    try:
        options, plain = split_globals(before)
        found = _words(options, plain, wants_option=last.startswith("-"))
    except ApplianceError:
        return []
    return sorted({one for one in found if one.startswith(last)})


def _words(options: dict[str, str], plain: Sequence[str], *, wants_option: bool) -> Iterable[str]:
    if not plain or plain == ["help"]:
        return _GLOBALS if wants_option else [*NOUNS, *(["help"] if not plain else [])]
    if plain[0] not in NOUNS:
        return ()
    parser, _ = load_noun(plain[0])
    for word in plain[1:]:
        verbs = _verbs(parser)
        if word in verbs:
            parser = verbs[word]
    taker = next((one for one in parser._actions if plain[-1] in one.option_strings and one.nargs != 0), None)
    if taker is not None:  # its value, then; a file name when nobody knows better
        return map(str, taker.choices or ())
    if wants_option:
        return [*_GLOBALS, *(text for action in parser._actions for text in action.option_strings)]
    if verbs := _verbs(parser):
        return verbs
    found: list[str] = []
    for action in parser._actions:
        if action.option_strings:
            continue
        if action.choices:
            found += map(str, action.choices)
        elif plain[0] in ("unit", "explain") and action.dest.lower() in _UNIT_WORDS:
            found += _unit_names(options)
    return found


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _unit_names(options: dict[str, str]) -> list[str]:
    from appliance.cli.client import call

    args = argparse.Namespace()
    set_globals(args, options)
    answer = call(args.layout, "GET", "/v1/units", timeout=1.0)
    units = answer.get("units", []) if isinstance(answer, dict) else answer
    return [str(one["name"]) for one in units]
