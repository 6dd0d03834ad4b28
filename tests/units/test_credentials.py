# ruff: noqa: ASYNC240 (a test may look at files)
"""Secrets of a unit: there while it is up, for its user alone, read anew at each start."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.units import read_unit_file
from units.stage import Stage


async def test_they_come_and_go_with_the_unit(stage: Stage) -> None:
    secret = stage.root / "secret"
    secret.write_bytes(b"one\n")
    service = f"credentials = {{ word = '{secret}' }}\ncredential_texts = {{ other = 'a b' }}"
    script = "cat $CREDENTIALS_DIRECTORY/word; cat $CREDENTIALS_DIRECTORY/other; echo; exec sleep 1000"
    stage.shell("web", script, service=service)
    directory = Path(stage.layout.below("/run/credentials/web.service"))
    async with stage.running(detach=True) as units:
        await stage.log(units, "web", "a b")
        assert {one.name: one.stat().st_mode & 0o777 for one in directory.iterdir()} == {"word": 0o400, "other": 0o400}
        assert directory.stat().st_mode & 0o777 == 0o500
        secret.write_bytes(b"two\n")
        await units.restart("web")
        await stage.log(units, "web", "two")
    assert (directory / "word").read_bytes() == b"two\n", "the unit lives on without us"
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        assert (directory / "word").exists()
        await units.stop("web")
        assert not directory.exists()
        secret.unlink()
        with pytest.raises(Exception, match=r"cannot load credential word: cannot read .*secret"):
            await units.start("web")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", ""])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    for key in ("credentials", "credential_texts"):
        file = tmp_path / "web.toml"
        file.write_text(f"[service]\ncommand = ['true']\n{key} = {{ \"{name}\" = '/etc/passwd' }}\n")
        _, unit, findings = read_unit_file(str(file))
        assert unit is None
        assert "expected letters, digits" in str(findings[0])
