"""What becomes of words that cannot be written, or cannot be read."""

from __future__ import annotations

import subprocess

import pytest

from appliance.cli import main, version
from appliance.errors import InputError
from cli.peer import command, serving

FULL = "appliance: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("words", ["--version", "version -o json", "--help", "unit --help", "completion bash"])
def test_a_full_disk_behind_standard_output_is_said(words: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(*words.split()), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_the_same_with_a_node_that_answers(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with serving(tmp_path) as peer, open("/dev/full", "wb") as full:
        peer.says("GET /v1/units", {"units": [], "findings": []})
        words = command("--root", str(tmp_path), "unit", "list")
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize(
    "words", [[b"unit", b"status", b"w\xff"], [b"unit", b"logs", b"\xff"], [b"unit", b"cat", b"\xff"]]
)
def test_a_name_that_is_not_utf_8_is_refused(words: list[bytes]) -> None:
    done = subprocess.run([*command(), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("appliance: cannot use '")
    assert done.stderr.endswith("udcff': it is not UTF-8\n")


def test_a_directory_that_is_not_utf_8_is_one_all_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    root = bytes(tmp_path) + b"/\xff"
    done = subprocess.run([*command(), b"--root", root, b"config", b"check"], capture_output=True, check=False)
    assert done.returncode == 0
    assert root in done.stdout


@pytest.mark.parametrize(("cause", "code"), [(PermissionError("no"), 5), (FileNotFoundError("no"), 2), (None, 2)])
def test_what_somebody_else_may_do_is_refused(
    cause: OSError | None, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise InputError("cannot lock /run/appliance/lock: because") from cause

    monkeypatch.setattr(version, "run", fail)
    assert main(["version", "-o", "json"]) == code
    assert capsys.readouterr().err == "appliance: cannot lock /run/appliance/lock: because\n"
