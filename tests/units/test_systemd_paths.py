"""What systemd's own tests of path units (its test/test-path) hold them to, in our words: .path files as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from units.stage import Stage

# name: (directives of [Path], what is made to happen there; a slash at its end: a directory)
CASES = {
    "exists": ("PathExists=@/exists", "exists"),
    "existsglob": ("PathExistsGlob=@/glob*", "glob-foo"),
    "changed": ("PathChanged=@/changed", "changed"),
    "modified": ("PathModified=@/modified", "modified"),
    "directorynotempty": ("DirectoryNotEmpty=@/spool", "spool/file"),
    "directory-made": ("DirectoryNotEmpty=@/made/deep\nMakeDirectory=yes\nDirectoryMode=0744", "made/deep/file"),
    "two": ("PathExists=@/first\nPathExists=@/second", "second"),
    "reset": ("PathExists=@/never\nPathExists=\nPathExists=@/only", "only"),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_path_unit_starts_its_service(stage: Stage, tmp_path: Path, name: str) -> None:
    directives, happens = CASES[name]
    place = tmp_path / "watched"
    place.mkdir()
    (place / "never").touch()
    (stage.directory / f"{name}.path").write_text(f"[Path]\n{directives.replace('@', str(place))}\n")
    (stage.directory / f"{name}.service").write_text(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
    )
    async with stage.running() as units:
        await stage.state(units, f"{name}.path", "ready")
        assert stage.states(name) == [], "nothing has happened yet"
        file = place / happens
        if "MakeDirectory" in directives:
            assert file.parent.stat().st_mode & 0o777 == 0o744
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        await stage.state(units, name, "exited")
        await units.stop(f"{name}.path")
        await units.stop(name)
        before = len(stage.states(name))
        file.unlink()
        file.write_text("y")
        assert len(stage.states(name)) == before, "a path unit that is down starts nothing"


async def test_it_starts_another_unit_and_one_that_ends_at_once_again(stage: Stage, tmp_path: Path) -> None:
    """``Unit=``; and what is there still when the service is over starts it again."""
    (stage.directory / "watch.path").write_text(f"[Path]\nPathExists={tmp_path}/there\nUnit=mine.service\n")
    count = f"{tmp_path}/count"
    script = f"[ $(wc -l < {count}) -lt 3 ] || rm {tmp_path}/there; echo x >> {count}"
    (tmp_path / "count").touch()
    (stage.directory / "mine.service").write_text(
        f"[Service]\nType=oneshot\nExecStart=/bin/sh -c '{script.replace('$', '$$')}'\n"
    )
    async with stage.running() as units:
        await stage.state(units, "watch.path", "ready")
        (tmp_path / "there").touch()
        await stage.until(lambda: not os.path.exists(tmp_path / "there"))
        await stage.until(lambda: stage.states("mine").count("starting") == 4)
        await stage.state(units, "mine", "stopped")
        assert units.picture("watch.path").state == "ready"
