"""The publisher: what is refused leaves the repository as it was; what is published is what a host believes."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from appliance.errors import ConflictError, CorruptError, InputError, NotFoundError, UnavailableError, UntrustedError
from appliance.host import files
from appliance.host.slots import architecture
from appliance.release import (
    KeyRing,
    create,
    listing,
    publish,
    rotate,
    stage_file,
    stage_promotion,
    staged_releases,
    verify,
)

DAY = 86400.0


@pytest.fixture
def repository(tmp_path: Path) -> str:
    directory = str(tmp_path / "repository")
    keys = KeyRing(str(tmp_path / "keys"))
    publish(directory, keys, fresh=create(directory, keys, root_keys=3, threshold=2))
    return directory


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys")


def binary(tmp_path: Path, version: str, content: bytes = b"program") -> str:
    """Bytes with the footer of a built binary."""
    file = tmp_path / f"appliance-{version}"
    footer = struct.pack("<QQQ64s64s16s", 1, 2, 3, b"f" * 64, version.encode(), b"APPLIANCE-PACK-1")
    file.write_bytes(content * 1000 + version.encode() + footer)
    return str(file)


def add(repository: str, file: str, channel: str = "alpha", **options: Any) -> None:
    stage_file(repository, file, channel=channel, architecture=architecture(), **options)


def served(repository: str) -> dict[str, bytes]:
    """Everything that a host can see and that the timestamp leads to."""
    found = {}
    for folder in ("metadata", "targets"):
        for path in Path(repository, folder).rglob("*"):
            if path.is_file():
                found[str(path)] = path.read_bytes()
    return found


def versions(repository: str) -> list[tuple[str, str]]:
    return [(one["channel"], one["version"]) for one in listing(repository)["releases"]]


def test_from_keys_to_a_verified_release(repository: str, keys: str, tmp_path: Path) -> None:
    file = binary(tmp_path, "1.2.0")
    add(repository, file, notes="first")
    assert versions(repository) == []
    assert [one.version for one in staged_releases(repository)] == ["1.2.0"]
    published = publish(repository, KeyRing(keys))
    assert [(one.channel, one.version, one.notes) for one in published] == [("alpha", "1.2.0", "first")]
    assert staged_releases(repository) == []
    stage_promotion(repository, "1.2", "alpha", "stable")
    publish(repository, KeyRing(keys))
    assert versions(repository) == [("alpha", "1.2.0"), ("stable", "1.2.0")]
    # The same bytes, shared.
    (one,) = Path(repository, f"targets/alpha/1.2.0/{architecture()}").iterdir()
    (two,) = Path(repository, f"targets/stable/1.2.0/{architecture()}").iterdir()
    assert one.samefile(two)
    assert one.read_bytes() == Path(file).read_bytes()
    trust = f"{repository}/metadata/1.root.json"
    verified = verify(repository, trust_root=trust, scratch=str(tmp_path / "scratch"))
    assert [(one["channel"], one["version"]) for one in verified] == [("alpha", "1.2.0"), ("stable", "1.2.0")]
    roles = {one["role"]: (one["keys"], one["threshold"]) for one in listing(repository)["roles"]}
    assert roles == {
        "root": (3, 2), "targets": (1, 1), "alpha": (1, 1), "beta": (1, 1), "stable": (1, 1), "snapshot": (1, 1),
        "timestamp": (1, 1),
    }  # fmt: skip


def test_keys_are_private_and_never_written_over(repository: str, keys: str) -> None:
    names = sorted(path.name for path in Path(keys).iterdir())
    assert names == sorted(
        f"{name}.pem"
        for name in ("root-1", "root-2", "root-3", "targets", "alpha", "beta", "stable", "snapshot", "timestamp")
    )
    assert {path.stat().st_mode & 0o777 for path in Path(keys).iterdir()} == {0o600}
    with pytest.raises(ConflictError, match="it exists"):
        KeyRing(keys).make("alpha")
    with pytest.raises(ConflictError, match="there is one"):
        create(repository, KeyRing(keys), root_keys=1, threshold=1)
    Path(keys, "alpha.pem").chmod(0o644)
    with pytest.raises(InputError, match="others may read it"):
        KeyRing(keys)
    Path(keys, "alpha.pem").chmod(0o600)
    Path(keys, "alpha.pem").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot read key"):
        KeyRing(keys)


@pytest.mark.parametrize(("count", "threshold"), [(3, 4), (3, 0), (0, 0), (10, 2), (1, -1)])
def test_a_wrong_threshold_is_refused(tmp_path: Path, count: int, threshold: int) -> None:
    with pytest.raises(InputError, match="threshold"):
        create(str(tmp_path / "new"), KeyRing(str(tmp_path / "k")), root_keys=count, threshold=threshold)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("missing", ["alpha", "snapshot", "timestamp"])
def test_a_missing_key_changes_nothing(repository: str, keys: str, tmp_path: Path, missing: str) -> None:
    add(repository, binary(tmp_path, "1.0"))
    Path(keys, f"{missing}.pem").rename(tmp_path / "kept")
    before = served(repository)
    with pytest.raises(InputError, match=f"cannot sign {missing}: 1 of its 1 keys"):
        publish(repository, KeyRing(keys))
    assert served(repository) == before
    (tmp_path / "kept").rename(Path(keys, f"{missing}.pem"))
    publish(repository, KeyRing(keys))  # what was added is still waiting
    assert versions(repository) == [("alpha", "1.0")]


def test_root_needs_its_threshold(repository: str, keys: str, tmp_path: Path) -> None:
    for name in ("root-1", "root-2"):
        Path(keys, f"{name}.pem").rename(tmp_path / name)
    before = served(repository)
    with pytest.raises(InputError, match="2 of its 3 keys are needed"):
        rotate(repository, KeyRing(keys), "timestamp")
    assert served(repository) == before
    assert not Path(keys, "timestamp_2.pem").exists()
    (tmp_path / "root-1").rename(Path(keys, "root-1.pem"))
    assert rotate(repository, KeyRing(keys), "timestamp") == "timestamp_2"  # two of three are enough


def test_a_channel_does_not_go_backwards(repository: str, keys: str, tmp_path: Path) -> None:
    add(repository, binary(tmp_path, "2.0"))
    with pytest.raises(InputError, match=r"it holds 2\.0, and a channel does not go backwards"):
        add(repository, binary(tmp_path, "1.9"))
    publish(repository, KeyRing(keys))
    before = served(repository)
    with pytest.raises(InputError, match="backwards"):
        add(repository, binary(tmp_path, "1.9"))
    with pytest.raises(ConflictError, match="it is there already"):
        add(repository, binary(tmp_path, "2.0"))
    with pytest.raises(ConflictError, match="with other bytes"):
        add(repository, binary(tmp_path, "2.0.0", b"something else"), "beta")
    add(repository, binary(tmp_path, "2.1"))
    publish(repository, KeyRing(keys))
    with pytest.raises(NotFoundError, match="holds no such release"):
        stage_promotion(repository, "1.9", "alpha", "beta")
    stage_promotion(repository, "2.1", "alpha", "beta")
    with pytest.raises(InputError, match="backwards"):
        stage_promotion(repository, "2.0", "alpha", "beta")
    assert before.items() <= {**served(repository), f"{repository}/metadata/timestamp.json": before[
        f"{repository}/metadata/timestamp.json"]}.items()  # fmt: skip


def test_what_is_no_binary_is_refused(repository: str, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"noise" * 100)
    with pytest.raises(InputError, match="it is no appliance binary"):
        add(repository, str(noise))
    add(repository, str(noise), version="1.0")  # a person says so
    with pytest.raises(InputError, match="calls itself 3"):
        add(repository, binary(tmp_path, "3.0"), version="4.0")
    with pytest.raises(InputError, match="must look like"):
        add(repository, binary(tmp_path, "3.0"), floor="soon")
    with pytest.raises(InputError, match="allowed are alpha, beta, stable"):
        add(repository, binary(tmp_path, "3.0"), "nightly")
    with pytest.raises(NotFoundError):
        add(repository, str(tmp_path / "nothing"))


def test_a_file_that_changes_while_it_is_read_is_refused(
    repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.release import staging

    file = binary(tmp_path, "1.0")

    class Writing(staging.RealSlotCalls):
        """Somebody appends between our first and our second piece."""

        def pieces(self, path: str, *, from_disk: bool = False) -> Any:
            for piece in super().pieces(path, from_disk=from_disk):
                with open(path, "ab") as other:
                    other.write(b"more")
                yield piece

    monkeypatch.setattr(staging, "RealSlotCalls", Writing)
    with pytest.raises(ConflictError, match="it changed while it was read"):
        add(repository, file)
    assert staged_releases(repository) == []


def test_staged_bytes_that_rot_are_not_published(repository: str, keys: str, tmp_path: Path) -> None:
    add(repository, binary(tmp_path, "1.0"))
    (staged,) = [path for path in Path(repository, ".staged").iterdir() if len(path.name) == 64]
    data = staged.read_bytes()
    staged.write_bytes(b"?" + data[1:])
    before = served(repository)
    with pytest.raises(CorruptError, match="is not what was added"):
        publish(repository, KeyRing(keys))
    assert served(repository) == before


def break_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """The disk is full at the ``number``-th small write of a publish."""
    from appliance.release import publishing

    count = 0
    honest = files.write_atomic

    def write(path: str, data: bytes, **options: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise files.translate(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "write", path)
        honest(path, data, **options)

    monkeypatch.setattr(publishing.files, "write_atomic", write)
    return lambda: count


def test_a_publish_that_fails_at_any_write_changes_nothing(
    repository: str, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repository, binary(tmp_path, "1.0"))
    before = served(repository)
    for number in range(1, 20):
        with monkeypatch.context() as patch:
            writes = break_writes(patch, number)
            with contextlib.suppress(UnavailableError):
                publish(repository, KeyRing(keys))
            if writes() < number:
                break
        assert served(repository) == before, number
    assert number > 3
    assert versions(repository) == [("alpha", "1.0")]


def test_a_publish_that_is_killed_is_done_again(repository: str, keys: str, tmp_path: Path) -> None:
    """kill -9 at each write: hosts see the old or the new state, and the next publish brings the new one."""
    code = """
import os, signal, sys
from appliance.host import files
honest, left = files.write_atomic, int(sys.argv[3])
def write(path, data, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    honest(path, data, **options)
files.write_atomic = write
from appliance.release import KeyRing, publish
publish(sys.argv[1], KeyRing(sys.argv[2]))
"""
    trust = f"{repository}/metadata/1.root.json"
    add(repository, binary(tmp_path, "1.0"))
    for number in range(1, 9):
        result = subprocess.run([sys.executable, "-c", code, repository, keys, str(number)])
        verify(repository, trust_root=trust, scratch=str(tmp_path / f"scratch-{number}"))
        if result.returncode == 0:
            break
        assert versions(repository) == []
    assert result.returncode == 0
    assert versions(repository) == [("alpha", "1.0")]
    assert staged_releases(repository) == []


def test_what_expires_soon_is_renewed_and_the_rest_left(repository: str, keys: str) -> None:
    before = {one["role"]: one["version"] for one in listing(repository)["roles"]}
    publish(repository, KeyRing(keys))
    after = {one["role"]: one["version"] for one in listing(repository)["roles"]}
    assert {role for role in after if after[role] > before[role]} == {"snapshot", "timestamp"}
    in_a_year = files.file_stat(f"{repository}/metadata/timestamp.json").modified_seconds + 350 * DAY
    publish(repository, KeyRing(keys), now=in_a_year)
    later = {one["role"]: one["version"] for one in listing(repository)["roles"]}
    assert all(later[role] > after[role] for role in later)


def test_verify_sees_every_byte(repository: str, keys: str, tmp_path: Path) -> None:
    add(repository, binary(tmp_path, "1.0"))
    publish(repository, KeyRing(keys))
    trust = f"{repository}/metadata/1.root.json"
    (target,) = Path(repository, f"targets/alpha/1.0/{architecture()}").iterdir()
    data = bytearray(target.read_bytes())
    data[7] ^= 1
    target.unlink()
    target.write_bytes(data)
    with pytest.raises(UntrustedError, match="its bytes are not those that were signed"):
        verify(repository, trust_root=trust, scratch=str(tmp_path / "1"))
    stranger = KeyRing(str(tmp_path / "strange-keys"))
    other = str(tmp_path / "other")
    publish(other, stranger, fresh=create(other, stranger, root_keys=1, threshold=1))
    with pytest.raises(UntrustedError, match="signed by 0/1"):
        verify(repository, trust_root=f"{other}/metadata/1.root.json", scratch=str(tmp_path / "2"))


def test_rotating_every_key(repository: str, keys: str, tmp_path: Path) -> None:
    add(repository, binary(tmp_path, "1.0"))
    publish(repository, KeyRing(keys))
    for name in ("root-2", "targets", "alpha", "beta", "snapshot", "timestamp"):
        rotate(repository, KeyRing(keys), name)
        Path(keys, f"{name}.pem").unlink()
    add(repository, binary(tmp_path, "1.1"))
    publish(repository, KeyRing(keys))
    trust = f"{repository}/metadata/1.root.json"
    assert len(verify(repository, trust_root=trust, scratch=str(tmp_path / "scratch"))) == 2
    with pytest.raises(NotFoundError, match="holds no such key"):
        rotate(repository, KeyRing(keys), "timestamp")
    with pytest.raises(InputError, match="there is no role nonsense"):
        rotate(repository, KeyRing(keys), "nonsense")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> str:
        assert main(["release", *words]) == 0
        return capsys.readouterr().out

    directory, keys = str(tmp_path / "repo"), str(tmp_path / "keys")
    out = run("init", directory, "--keys", keys, "--root-keys", "3", "--threshold", "2")
    assert "1.root.json as /etc/appliance/trust/root.json" in out
    assert "2 of 3" in out
    out = run("add", directory, "--channel", "alpha", binary(tmp_path, "1.0.0"), "--notes", "hello")
    assert "to be published next: 1" in out
    assert "published: 1" in run("publish", directory, "--keys", keys, "--timestamp-expires", "2d")
    run("promote", directory, "1.0.0", "alpha", "beta")
    run("publish", directory, "--keys", keys)
    assert "verified: 2" in run("verify", directory)
    assert "root-1" in run("key", "list", directory, "--keys", keys)
    assert "replaced by alpha_2" in run("key", "rotate", directory, "alpha", "--keys", keys)
    assert '"version": "1.0.0"' in run("list", directory, "-o", "json")
    assert main(["release", "publish", str(tmp_path / "nowhere"), "--keys", keys]) == 2
    assert "it is no repository" in capsys.readouterr().err
    assert main(["release", "add", directory, "--channel", "nightly", "x"]) == 2
    assert main(["release"]) == 2


def test_init_is_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run checks and makes all of it, elsewhere."""
    directory, keys = str(tmp_path / "repo"), str(tmp_path / "keys")
    words = ["release", "init", directory, "--keys", keys, "--root-keys", "2", "--threshold", "2"]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "a repository would be made" in out
    assert "(alpha, beta, root-1, root-2, snapshot, stable, targets, timestamp new)" in out
    assert "2 of 2" in out
    assert out.endswith("a dry run: nothing was changed\n")
    assert list(tmp_path.iterdir()) == []
    assert main([*words[:-1], "3", "--dry-run"]) == 2
    assert main(words) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([*words, "--dry-run"]) == 7
    assert "there is one" in capsys.readouterr().err
    elsewhere = ["release", "init", str(tmp_path / "other"), "--keys", keys, "--dry-run", "--root-keys", "3"]
    assert main(elsewhere) == 0  # the keys that are there, and one more
    assert "(root-3 new)" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "file").touch()
    assert main(["release", "init", str(tmp_path / "file/repo"), "--keys", keys, "--dry-run"]) == 2
    assert "is no directory that can be written to" in capsys.readouterr().err


def test_metadata_that_no_host_would_read_is_not_published(
    repository: str, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.release import committing

    file = tmp_path / "file"
    file.write_bytes(b"a program")
    stage_file(repository, str(file), channel="alpha", architecture="x86_64", version="9.0")
    before = {path: path.read_bytes() for path in Path(repository, "metadata").iterdir()}
    monkeypatch.setattr(committing, "METADATA_LENGTH_MAX", 700)
    with pytest.raises(InputError, match=r"metadata of \w+ would have .* hosts take at most .*release prune --keep"):
        publish(repository, KeyRing(keys))
    assert {path: path.read_bytes() for path in Path(repository, "metadata").iterdir()} == before
