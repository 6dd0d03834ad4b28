"""The command line: finds the noun, imports its module and nothing else, turns errors into exit codes.

A noun module has ``add_arguments(parser)`` and ``run(args) -> int``. It finds ``args.layout``, ``args.output``
("table" or "json") and ``args.config`` set: the global options are taken out of the line before the noun sees it,
so they may stand anywhere before a ``--``. No module here imports trio or httpx: a command takes milliseconds.
"""

from __future__ import annotations

import errno
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from appliance.errors import ApplianceError

NOUNS = {
    "run": "run the node: what init starts, in the foreground",
    "status": "one screen: node, services, units, store, update, problems",
    "top": "the same, live",
    "unit": "list, start, stop, restart units; their logs and files",
    "logs": "what all units and the kernel wrote, by time",
    "store": "get, put, del, watch keys; backup and restore",
    "etcd": "the store alone, in place of an etcd: its flags, its API",
    "update": "check, download, apply, roll back; explain what it waits for",
    "config": "check and show the settings",
    "events": "what happens, as it happens",
    "explain": "what is refused or waits, why, and what helps",
    "doctor": "can this host run everything, and what is missing",
    "reboot": "stop in order, then restart the machine (our own OS image)",
    "poweroff": "stop in order, then switch the machine off (our own OS image)",
    "install": "start at boot, as a service of this host's init",
    "uninstall": "undo install",
    "support": "one archive for a bug report, without secrets",
    "release": "for the publisher: keys, repository, releases",
    "completion": "completion script for bash, zsh or fish",
    "version": "which version this is",
}
HIDDEN = ("update-worker", "complete")
_OVERVIEW = (
    ("See", ("status", "top", "explain", "logs", "events", "doctor", "support", "version")),
    ("Run", ("run", "install", "uninstall", "reboot", "poweroff", "etcd")),
    ("Work with", ("unit", "store", "update", "config")),
    ("Publish", ("release",)),
    ("Shell", ("completion",)),
)
GLOBAL_HELP = """Options, before or after the command:
  --root DIR      everything below DIR instead of / (or APPLIANCE_ROOT)
  --config FILE   these settings instead of /etc/appliance/appliance.toml
  -o table|json   for people, or for programs
"""
_EXIT_CODES = (
    "Exit codes:",
    "  0 done   1 failed   2 usage or bad input   3 not running   4 no such thing",
    "  5 refused (trust, permission)   6 not yet (a gate is shut)   7 conflict",
)
_OUTPUT_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # of what a print may meet
_VALUED = {"--root": "root", "--config": "config", "--output": "output", "-o": "output"}


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code (design 3.2)."""
    from appliance.errors import ApplianceError, InputError

    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # what came in so goes out so
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except ApplianceError as error:
        return _fail(error)
    except UnicodeEncodeError as error:
        return _fail(InputError(f"cannot use {error.object[:200]!a}: it is not UTF-8"))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough; nothing may be flushed at exit
        _drop_output()
        return 141
    except OSError as error:
        if error.errno not in _OUTPUT_FAULTS or error.filename is not None:
            raise
        _drop_output()
        return _fail(ApplianceError(f"cannot write to standard output: {error.strerror}"))


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(error: ApplianceError) -> int:
    from appliance.errors import UntrustedError

    try:
        sys.stdout.flush()
        print(f"appliance: {error}", file=sys.stderr)
    except OSError:
        _drop_output()
    if isinstance(error.__cause__, PermissionError):  # whatever it was about: to be somebody else is what helps
        return UntrustedError.exit_code
    return error.exit_code


def _dispatch(argv: Sequence[str]) -> int:
    options, words = split_globals(argv)
    if words and words[0] == "help":
        words = [*words[1:], "--help"] if len(words) > 1 else ["--help"]
    if not words:
        print(overview(), end="", file=sys.stderr)
        return 2
    noun, *rest = words
    if noun in ("--help", "-h"):
        print(overview(), end="")
        return 0
    if noun == "--version":
        noun = "version"
    if noun not in NOUNS and noun not in HIDDEN:
        _refuse_noun(noun)
    if words == ["run"]:  # nothing to parse: what every start of the node need not load
        from appliance.cli import run

        args: Any = SimpleNamespace()
        set_globals(args, options)
        return run.run(args)
    parser, act = load_noun(noun)
    args = parser.parse_args(rest)
    set_globals(args, options)
    return act(args)


def split_globals(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The global options, and the words without them. Raises InputError when a value is missing or not allowed."""
    from appliance.errors import InputError

    options: dict[str, str] = {}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--":
            words += [word, *rest]
            break
        name, equals, value = word.partition("=")
        if name not in _VALUED and word in ("-ojson", "-otable", "-ocat", "-oiso", "-oshort", "-ojournal"):
            name, equals, value = "-o", "=", word[2:]
        if name not in _VALUED:
            words.append(word)
            continue
        if not equals:
            value = next(rest, "")
        if not value:
            raise InputError(f"cannot use {name}: it needs a value")
        options[_VALUED[name]] = value
    allowed: tuple[str, ...] = ("table", "json")
    if "logs" in words[:2]:
        allowed += ("short", "iso", "cat", "journal")
    if (output := options.get("output", "table")) not in allowed:
        either = " or ".join(f'"{one}"' for one in allowed)
        raise InputError(f"cannot use -o {output}: the output is {either}")
    return options, words


def set_globals(args: argparse.Namespace, options: dict[str, str]) -> None:
    """Give a noun what every noun gets."""
    from appliance.host.layout import Layout

    args.layout = Layout(os.path.abspath(options.get("root") or os.environ.get("APPLIANCE_ROOT") or "/"))
    config = options.get("config")
    args.config = os.path.abspath(config) if config else None
    args.output = options.get("output", "table")


def load_noun(noun: str) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
    """Its parser, filled, and its ``run``."""
    from importlib import import_module

    from appliance.cli.parser import Parser, give_examples

    module = import_module(f"appliance.cli.{noun.replace('-', '_')}")
    parser = Parser(prog=f"appliance {noun}", description=NOUNS.get(noun))
    module.add_arguments(parser)
    give_examples(parser)
    return parser, module.run


def overview() -> str:
    """What ``appliance --help`` prints."""
    lines = ["Appliance: one file that turns a Linux host into a self-updating, self-healing node.", ""]
    lines += ["usage: appliance COMMAND [--root DIR] [--config FILE] [-o table|json]", ""]
    for title, nouns in _OVERVIEW:
        lines.append(f"{title}:")
        lines += [f"  {noun:<12} {NOUNS[noun]}" for noun in nouns]
        lines.append("")
    lines += [GLOBAL_HELP, *_EXIT_CODES, ""]
    lines += ["Examples:", "  appliance status", "  appliance unit logs -f web", "  appliance unit --help"]
    return "\n".join(lines) + "\n"


def _refuse_noun(noun: str) -> None:
    from appliance.errors import InputError
    from appliance.schema import did_you_mean

    kind = "option" if noun.startswith("-") else "command"
    guess = did_you_mean(noun, list(NOUNS))
    raise InputError(f'cannot run "{noun}": no such {kind}; {guess or "see `appliance --help`"}')
