"""What Tab offers, and the scripts in the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.cli import NOUNS
from appliance.cli.complete import candidates
from appliance.cli.completion import SCRIPTS
from cli.peer import SOURCE, Peer, environment, run


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([""], sorted([*NOUNS, "help"])),
        (["st"], ["status", "store"]),
        (["help", "ver"], ["version"]),
        (["--root", "/x", "conf"], ["config"]),
        (["config", ""], ["check", "reload", "show"]),
        (["config", "show", "--r"], ["--root", "--running"]),
        (["status", "-o", "j"], ["json"]),
        (["status", "--root", ""], []),
        (["completion", "f"], ["fish"]),
        (["events", "--k"], ["--kind"]),
        (["events", "--kind", ""], ["service", "settings", "store", "unit", "update"]),
        (["unit", "wait", "web", "--for", "h"], ["healthy"]),
        (["unit", "wait", "--timeout", ""], []),
        (["unit", "logs", "-o", "s"], ["short"]),
        (["nonsense", ""], []),
        (["--"], ["--config", "--help", "--root"]),
        ([], sorted([*NOUNS, "help"])),
    ],
)
def test_candidates(words: list[str], found: list[str]) -> None:
    assert candidates(words) == found


def test_the_hidden_command_prints_them(peer: Peer) -> None:
    done = run("complete", "--", "--root", peer.layout.root, "status", "--wa")
    assert (done.returncode, done.stdout) == (0, "--wait\n")


def _shell(tmp_path: Path, *words: str) -> str:
    program = tmp_path / "bin" / "appliance"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {SOURCE}/.build/venv/bin/python -m appliance "$@"\n')
    program.chmod(0o755)
    env = environment(PATH=f"{program.parent}:/usr/bin:/bin")
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


def test_bash_completes(tmp_path: Path) -> None:
    script = """
compopt() { :; }
source <(appliance completion bash)
COMP_WORDS=(appliance config sh); COMP_CWORD=2; _appliance; echo "${COMPREPLY[@]}"
COMP_WORDS=(appliance un); COMP_CWORD=1; _appliance; echo "${COMPREPLY[@]}"
complete -p appliance
"""
    told = _shell(tmp_path, "bash", "-c", script).splitlines()
    assert told == ["show", "uninstall unit", "complete -F _appliance appliance"]


@pytest.mark.parametrize("shell", [one for one in ("zsh", "fish") if shutil.which(one)])
def test_other_shells_take_the_script(shell: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    _shell(tmp_path, shell, "-n", str(script))
