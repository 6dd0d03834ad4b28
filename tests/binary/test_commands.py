"""The commands of the built file that need nothing running."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from appliance.cli import NOUNS

pytestmark = pytest.mark.binary


def run(binary: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, *words], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_is_in_the_file(binary: Path, noun: str) -> None:
    done = run(binary, noun, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Example" in done.stdout


def test_bad_settings_are_told_with_their_place(binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "etc/appliance/appliance.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[status]\nlisten = "127.0.0.1:7780"\n\n[update]\nchanel = "stable"\n')
    done = run(binary, "--root", str(tmp_path), "config", "check")
    assert done.returncode == 2
    line = done.stdout.splitlines()[0]
    assert line.startswith(f'{file}:5:1: update.chanel: unknown key; did you mean "channel"? (allowed: ')
    allowed = set(line.partition("allowed: ")[2].rstrip(")").split(", "))
    assert {"channel", "health", "interval", "repository", "strategy"} <= allowed
    assert run(binary, "--root", str(tmp_path), "run").returncode == 2


def test_a_release_is_cut_by_the_compiled_cutter(binary: Path, tmp_path: Path) -> None:
    """Its slow twin takes a hundred times as long, and says so when it is loaded."""
    words = ("--keys", str(tmp_path / "keys"), "--root-keys", "1", "--threshold", "1")
    done = run(binary, "release", "init", str(tmp_path / "r"), *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_install_starts_the_file_that_was_dropped(binary: Path, tmp_path: Path) -> None:
    done = run(binary, "--root", str(tmp_path), "install", "--dry-run", "--init", "systemd")
    assert f"\nExecStart={binary} run --root {tmp_path}\n" in done.stdout


def test_doctor_and_support_need_nothing_running(binary: Path, tmp_path: Path) -> None:
    checks = json.loads(run(binary, "--root", str(tmp_path), "doctor", "-o", "json").stdout)["checks"]
    assert next(one for one in checks if one["name"] == "state")["state"] in ("ok", "warn")
    assert run(binary, "--root", str(tmp_path), "support", "--to", str(tmp_path / "x.tar.gz")).returncode == 0
    assert run(binary, "--root", str(tmp_path), "status").returncode == 3


def test_completion_answers(binary: Path) -> None:
    assert run(binary, "complete", "--", "config", "").stdout == "check\nreload\nshow\n"
