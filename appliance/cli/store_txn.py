"""``appliance store txn``: a transaction from standard input, in three parts as etcdctl has them.

Comparisons, then what is done when all hold, then what else; an empty line between them. The operations are those of
the command line: get, put, del with their options.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from typing import Any

from appliance.cli import store_keys
from appliance.errors import InputError

EXAMPLES = """Comparisons: version, create, mod, value or lease of ("KEY"), then = != < or >, then "VALUE".

Examples:
  printf 'version("lock") = "0"\\n\\nput lock me\\n\\nget lock\\n' | appliance store txn
  appliance store txn < change.txt -o json

  value("greeting") = "hello"
  mod("greeting") > "3"

  put greeting again
  del --prefix /old/

  get greeting"""
_COMPARE = re.compile(r"""(\w+)\(\s*("(?:[^"\\]|\\.)*"|[^")]*)\s*\)\s*(=|==|!=|<|>)\s*(.*)""")
_RESULTS = {"=": "equal", "==": "equal", "!=": "not_equal", "<": "less", ">": "greater"}
_TARGETS = ("version", "create", "mod", "value", "lease")
_VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Any]]] = {
    "get": ("range", store_keys.add_get, store_keys.get_asked),
    "put": ("put", store_keys.add_put, store_keys.put_asked),
    "del": ("delete", store_keys.add_del, store_keys.del_asked),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: all of it comes from standard input."""
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """0 when the comparisons held, 7 when they did not: then the third part was done."""
    from appliance.cli.client import call
    from appliance.cli.render import show
    from appliance.errors import ConflictError

    if sys.stdin.isatty():
        print("comparisons; an empty line; what to do; an empty line; what else; Ctrl-D", file=sys.stderr)
    body, verbs = parse_txn(sys.stdin.read())
    answer = call(args.layout, "POST", "/v1/store/txn", body)
    if args.output == "json":
        show(args, answer, str)
    else:
        print("done" if answer["succeeded"] else "a comparison does not hold")
        for one, said in zip(verbs[0 if answer["succeeded"] else 1], answer["responses"], strict=True):
            _print(one, said)
    return 0 if answer["succeeded"] else ConflictError.exit_code


def parse_txn(text: str) -> tuple[dict[str, Any], tuple[list[argparse.Namespace], list[argparse.Namespace]]]:
    """The request, and the operations of both branches as they were said. Raises InputError with the line."""
    parts: list[list[tuple[int, str]]] = [[], [], []]
    part = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            parts[part].append((number, line.strip()))
        elif part < 2:
            part += 1
    if not any(parts):
        raise InputError("cannot read the transaction: nothing came on standard input")
    compares = [_at(number, _compare, line) for number, line in parts[0]]
    branches = [[_at(number, _operation, line) for number, line in part] for part in parts[1:]]
    bodies = [[{_VERBS[one.verb][0]: _VERBS[one.verb][2](one)} for one in branch] for branch in branches]
    return {"compare": compares, "success": bodies[0], "failure": bodies[1]}, (branches[0], branches[1])


def _at(number: int, parse: Callable[[str], Any], line: str) -> Any:
    try:
        return parse(line)
    except (InputError, ValueError) as exc:
        message = exc.message if isinstance(exc, InputError) else str(exc)
        raise InputError(f"cannot read line {number} of the transaction: {message}") from None


def _compare(line: str) -> dict[str, Any]:
    found = _COMPARE.fullmatch(line)
    if found is None:
        raise InputError(f'found "{line}", expected a comparison such as version("key") = "0"')
    target, key, result, value = found.groups()
    if target not in _TARGETS:
        raise InputError(f'found "{target}", expected one of {", ".join(_TARGETS)}')
    wanted = {"key": _word(key), "target": target, "result": _RESULTS[result]}
    if target == "value":
        return {**wanted, "value": _word(value)}
    word = "".join(shlex.split(value))
    if target == "lease":
        return {**wanted, "operand": store_keys.lease_id(word)}
    if not word.isdecimal():
        raise InputError(f'found "{word}", expected a whole number')
    return {**wanted, "operand": int(word)}


def _word(text: str) -> str:
    return store_keys.text_of("".join(shlex.split(text)).encode(errors="surrogateescape"))


def _operation(line: str) -> argparse.Namespace:
    from appliance.cli.parser import Parser

    verb, *words = shlex.split(line)
    if verb not in _VERBS:
        raise InputError(f'found "{verb}", expected get, put or del')
    parser = Parser(prog=verb, add_help=False)
    _VERBS[verb][1](parser)
    args = parser.parse_args(words)
    if verb == "put" and args.value == "-":
        raise InputError("put needs a value here")
    args.verb = verb
    return args


def _print(asked: argparse.Namespace, said: dict[str, Any]) -> None:
    match asked.verb:
        case "get":
            store_keys.print_got(said, asked)
        case "put":
            print(f"revision {said['revision']}")
            if said["prev"]:
                store_keys.print_pair(said["prev"])
        case _:
            store_keys.print_deleted(said)
