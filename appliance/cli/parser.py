"""argparse in our manners: no abbreviations, did-you-mean, errors as ours, examples kept as written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from appliance.errors import InputError

_SAMPLES = {"NAME": "web", "UNIT": "web", "KEY": "greeting"}  # what an example says for them


class Parser(argparse.ArgumentParser):
    """``add_subparsers`` makes its children of this class too. Put examples into ``epilog``; they keep their lines."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **options)

    def error(self, message: str) -> NoReturn:
        """Raises InputError, which ends in exit code 2."""
        raise InputError(f"cannot run `{self.prog}`: {message}; see `{self.prog} --help`")

    def format_help(self) -> str:
        """With the global options after our own, and before the examples."""
        from appliance.cli import GLOBAL_HELP

        epilog, self.epilog = self.epilog, None
        try:
            text = super().format_help()
        finally:
            self.epilog = epilog
        return text + "\n" + GLOBAL_HELP + (f"\n{epilog}\n" if epilog else "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        from appliance.schema import did_you_mean

        allowed = [str(one) for one in action.choices]
        guess = did_you_mean(str(value), allowed)
        raise argparse.ArgumentError(
            action, f'found "{value}"{", " + guess[:-1] if guess else ""} (allowed: {", ".join(allowed)})'
        )


def a_duration(text: str) -> str:
    """For ``type=``: the text, which is one."""
    from appliance.schema import parse_duration

    try:
        parse_duration(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(f'found "{text}", {error.message}') from None
    return text


def a_number(text: str) -> int:
    """For ``type=``: a whole number, not below 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f'found "{text}", expected a whole number')
    return int(text)


def give_examples(parser: argparse.ArgumentParser) -> None:
    """A verb without an example gets those of its noun that call it; or itself with what it cannot do without."""
    of_noun = [line.strip() for _, one in walk(parser) for line in (one.epilog or "").splitlines()]
    for prog, one in walk(parser):
        if "Example" in (one.epilog or ""):
            continue
        found = [line for line in of_noun if f"{line} ".startswith(f"{prog} ")]
        found = found or [" ".join([prog, *_needed(one)])]
        title = "Examples" if len(found) > 1 else "Example"
        one.epilog = "\n".join([*filter(None, [one.epilog]), f"{title}:", *(f"  {line}" for line in found)])


def _needed(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if action.required:
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            name = _SAMPLES.get(name, name)
            yield f"{action.option_strings[-1]} {name}" if action.option_strings else name


def walk(parser: argparse.ArgumentParser) -> Sequence[tuple[str, argparse.ArgumentParser]]:
    """The parser and every parser of a verb below it, with their full names."""
    found = [(parser.prog, parser)]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                found += walk(child)
    return found
