"""The frame around all commands: global options, refusals, exit codes, what is imported."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import errors
from appliance.cli import HIDDEN, NOUNS, load_noun, main, overview, split_globals
from appliance.cli.parser import walk
from appliance.errors import InputError
from cli.peer import Peer, chunked, command, environment, http, run

HERE = [noun for noun in (*NOUNS, *HIDDEN) if (Path(__file__).parents[2] / f"appliance/cli/{noun}.py").exists()]
FORBIDDEN = ("trio", "httpx", "tuf", "cryptography", "ssl", "h11", "http.client", "email", "asyncio")


@pytest.mark.parametrize("noun", [*NOUNS, *HIDDEN])
def test_every_noun_has_its_module(noun: str) -> None:
    assert (Path(__file__).parents[2] / f"appliance/cli/{noun.replace('-', '_')}.py").exists()


@pytest.mark.parametrize("noun", [noun for noun in HERE if noun in NOUNS])
def test_every_command_has_help_with_an_example(noun: str) -> None:
    for prog, parser in walk(load_noun(noun)[0]):
        text = parser.format_help()
        assert "--root DIR" in text, prog
        assert "Example" in text, prog
        assert prog.replace("appliance ", "") in text.split("Example")[1], prog


@pytest.mark.parametrize("noun", [noun for noun in HERE if noun in NOUNS])
def test_every_example_can_be_typed_as_it_stands(noun: str) -> None:
    parser, _ = load_noun(noun)
    lines = {line.strip() for _, one in walk(parser) for line in (one.epilog or "").splitlines()}
    for line in sorted(line for line in lines if re.match(r"(\w+ .*\| )?appliance ", line)):
        said = re.split(r" {2,}| [|<>#] | && ", line[line.index("appliance ") :])[0]
        _, (first, *words) = split_globals(shlex.split(said)[1:])
        if first == noun:
            parser.parse_args(words)  # raises InputError
        assert not re.search(r" [A-Z]{3,}\b", said), f"{line}: a placeholder is no example"


def test_the_overview_names_every_noun_and_fits_a_terminal() -> None:
    text = overview()
    for noun, summary in NOUNS.items():
        assert f"  {noun:<12} {summary}\n" in text
    assert max(map(len, text.splitlines())) <= 88
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ApplianceError):
            assert f" {kind.exit_code} " in text, kind


@pytest.mark.parametrize(
    ("argv", "options", "words"),
    [
        (["--root", "/x", "status"], {"root": "/x"}, ["status"]),
        (["status", "--root=/x", "-o", "json"], {"root": "/x", "output": "json"}, ["status"]),
        (["unit", "-ojson", "list"], {"output": "json"}, ["unit", "list"]),
        (["unit", "list", "--output=table", "--config", "f"], {"output": "table", "config": "f"}, ["unit", "list"]),
        (["store", "put", "--", "--root", "x"], {}, ["store", "put", "--", "--root", "x"]),
        (["--root", "/a", "x", "--root", "/b"], {"root": "/b"}, ["x"]),
    ],
)
def test_global_options_stand_anywhere(argv: list[str], options: dict[str, str], words: list[str]) -> None:
    assert split_globals(argv) == (options, words)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--root"], "cannot use --root: it needs a value"),
        (["status", "--root="], "cannot use --root: it needs a value"),
        (["-o", "yaml", "status"], 'cannot use -o yaml: the output is "table" or "json"'),
    ],
)
def test_global_options_that_are_wrong(argv: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        split_globals(argv)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stauts"], 'cannot run "stauts": no such command; did you mean "status"?'),
        (["--sttus"], 'cannot run "--sttus": no such option; did you mean "status"?'),
        (["qqqqq"], 'cannot run "qqqqq": no such command; see `appliance --help`'),
        (
            ["config", "chekc"],
            'cannot run `appliance config`: argument VERB: found "chekc", did you mean "check" '
            "(allowed: check, show, reload); see `appliance config --help`",
        ),
        (
            ["config"],
            "cannot run `appliance config`: the following arguments are required: VERB; see `appliance config --help`",
        ),
        (
            ["status", "--wait", "1x"],
            'cannot run `appliance status`: argument --wait: found "1x", expected a duration such as "90s"; '
            "see `appliance status --help`",
        ),
        (
            ["unit", "wait", "web", "--timeout", "1y"],
            'cannot run `appliance unit wait`: argument --timeout: found "1y", expected a duration such as "90s"; '
            "see `appliance unit wait --help`",
        ),
        (
            ["store", "get", "a", "--rev", "abc"],
            'cannot run `appliance store get`: argument --rev: found "abc", expected a whole number; '
            "see `appliance store get --help`",
        ),
        (
            ["release", "prune", "x", "--keep", "1.5"],
            'cannot run `appliance release prune`: argument --keep: found "1.5", expected a whole number; '
            "see `appliance release prune --help`",
        ),
        (
            ["version", "--loud"],
            "cannot run `appliance version`: unrecognized arguments: --loud; see `appliance version --help`",
        ),
    ],
)
def test_usage_errors_end_in_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"appliance: {message}\n")


def test_no_words_at_all_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err == overview()
    assert main(["--help"]) == 0
    assert main(["help"]) == 0
    assert capsys.readouterr().out == overview() * 2


def test_version_three_ways() -> None:
    assert run("--version").stdout == run("version").stdout == run("version", "--root", "/").stdout
    assert json.loads(run("version", "-o", "json").stdout)["version"] in run("--version").stdout


def test_not_running_is_3(tmp_path: Path) -> None:
    done = run("status", "--root", str(tmp_path))
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == (
        f"appliance: cannot connect to {tmp_path}/run/appliance/control.sock: "
        f"no appliance runs below {tmp_path} (start it: appliance --root {tmp_path} run)\n"
    )


def test_the_root_comes_from_the_environment_too(tmp_path: Path) -> None:
    assert f"below {tmp_path}/a " in run("status", APPLIANCE_ROOT=str(tmp_path / "a")).stderr
    assert f"below {tmp_path}/b " in run("status", "--root", f"{tmp_path}/b", APPLIANCE_ROOT="/a").stderr


def test_a_reader_that_has_seen_enough_is_no_error(peer: Peer) -> None:
    peer.answers["GET /v1/events?after=0"] = chunked(*[b'data: {"time": 1, "kind": "unit"}\n\n'] * 5000)
    whole = command("events", "--past", "--root", peer.layout.root)
    with subprocess.Popen(whole, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_ctrl_c_ends_quietly_with_130(peer: Peer) -> None:
    peer.answers["GET /v1/events"] = lambda connection: (
        connection.sendall(chunked(b'data: {"time": 1, "kind": "unit"}\n\n', end=False)),
        connection.recv(1),
        None,
    )[-1]
    whole = command("events", "--root", peer.layout.root)
    with subprocess.Popen(whole, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
        assert process.wait(30) == 130


LOOK = """
import sys
from appliance.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(sorted(set(sys.modules) & set({forbidden!r})), file=sys.stderr)
"""


def imported(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(forbidden=FORBIDDEN), *words],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("noun", [noun for noun in HERE if noun in NOUNS])
def test_no_help_loads_what_takes_long(noun: str) -> None:
    assert imported(noun, "--help") == "[]"


def test_no_daily_command_loads_what_takes_long(peer: Peer) -> None:
    peer.says("GET /v1/status", {})
    peer.answers["GET /v1/events"] = http(b"")
    for words in (["status"], ["config", "check"], ["config", "show"], ["events"], ["complete", "--", "unit", ""]):
        assert imported(*words, "--root", peer.layout.root) == "[]", words


def test_version_imports_next_to_nothing() -> None:
    look = (
        "import sys; before = set(sys.modules); import appliance.__main__ as m; sys.argv[1:] = ['--version']; m.main();"
    )
    look += "print(sorted(one for one in set(sys.modules) - before if not one.startswith('appliance')))"
    done = subprocess.run([sys.executable, "-c", look], env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1].replace("'", '"')) == ["__future__"]
