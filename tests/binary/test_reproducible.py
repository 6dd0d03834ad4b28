from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.binary.conftest import HOUSE

pytestmark = pytest.mark.binary
SIZE_MAX = 30_000_000


def test_the_file_is_small_and_needs_nothing(built: Path) -> None:
    assert built.stat().st_size < SIZE_MAX
    headers = subprocess.run(["readelf", "-l", built], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers


@pytest.mark.slow
def test_a_second_build_elsewhere_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    for attempt in range(3):  # a developer's tree may change under the test
        subprocess.run([HOUSE / "build.sh"], check=True)
        elsewhere = tmp_path / f"another name {attempt}"
        for part in ("appliance", "packaging"):
            shutil.copytree(HOUSE / part, elsewhere / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HOUSE / "pyproject.toml", elsewhere)
        subprocess.run([sys.executable, elsewhere / "packaging/build.py"], check=True, cwd="/")
        if (elsewhere / ".build/built-from").read_text() == (HOUSE / ".build/built-from").read_text():
            break
    assert sha256(elsewhere / "dist/appliance") == sha256(built)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
