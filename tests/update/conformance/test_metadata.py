"""The cases of the TUF project's conformance suite (theupdateframework/tuf-conformance) against our host's trust code.

Every test bears the name of the case there (of test_basic, test_expiration, test_delegated_expiration, test_rollback,
test_keys, test_quoting_issues, test_file_download, test_updater_delegation_graphs, test_updater_key_rotations), so that
it can be looked up; the code is ours. Not here: test_static_repo, which needs their recorded repositories. Their own
runner drives client.py.
What we do more strictly than the specification asks is said where it shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.update.conformance.simulator import TOP, UP, Client, Simulator

HOUSE = Path(__file__).parents[3]
FIRST = [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
ALL = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def past(days: int) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)


# --- test_basic ---


def test_basic_init_and_refresh(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    assert repo.asked == FIRST
    assert client.trusted() == ALL


def test_implicit_refresh(client: Client, repo: Simulator) -> None:
    assert not client.download("nonexistent artifact")
    assert repo.asked == FIRST
    assert client.trusted() == ALL


def test_metadata_bytes_match(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    for role in TOP:
        assert (client.metadata / f"{role}.json").read_bytes() == repo.signed[role][1]


def test_invalid_initial_root(client: Client, repo: Simulator) -> None:
    said = json.loads(client.trusted_root)
    del said["signed"]["version"]
    client.trusted_root = json.dumps(said).encode()
    assert not client.refresh()
    assert repo.asked == []


def test_unsigned_initial_root(client: Client, repo: Simulator) -> None:
    said = json.loads(client.trusted_root)
    said["signatures"][0]["sig"] = "ab" * 64
    client.trusted_root = json.dumps(said).encode()
    assert not client.refresh()
    assert repo.asked == []


@pytest.mark.parametrize(
    ("role", "trusted"),
    [("root", ["root"]), ("timestamp", ["root"]), ("snapshot", ["root", "timestamp"]),
     ("targets", ["root", "timestamp", "snapshot"])],
)  # fmt: skip
def test_unsigned_metadata(client: Client, repo: Simulator, role: str, trusted: list[str]) -> None:
    repo.signers[role].popitem()
    if role == "root":
        repo.publish("root")
    else:
        repo.signed = {"root": repo.signed["root"]}
        repo.publish(*TOP)
    assert not client.refresh()
    assert client.trusted() == dict.fromkeys(trusted, 1)


def test_timestamp_content_changes(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    repo.of("timestamp").snapshot_meta.version = 100
    repo.publish("timestamp", version=1)
    assert client.refresh()
    assert repo.asked[-1] == ("timestamp", None)
    kept = json.loads((client.metadata / "timestamp.json").read_bytes())
    assert kept["signed"]["meta"]["snapshot.json"]["version"] == 1


test_timestamp_eq_versions_check = test_timestamp_content_changes


def test_basic_metadata_hash_support(client: Client, repo: Simulator) -> None:
    repo.with_hashes = True
    repo.publish(*TOP)
    assert client.refresh()
    repo.publish("targets")
    repo.of("snapshot").meta["targets.json"].hashes["sha256"] = "46" * 32
    repo.publish(*UP)
    assert not client.refresh()
    assert (client.trusted()["snapshot"], client.trusted()["targets"]) == (3, 2)


test_new_targets_hash_mismatch = test_basic_metadata_hash_support


def test_new_targets_version_mismatch(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    repo.publish("targets")
    assert client.refresh()
    assert client.trusted()["targets"] == 1
    assert repo.asked[-1] == ("timestamp", None)


def test_custom_fields(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    repo.root.unrecognized_fields["custom-field"] = "value"
    keyid = repo.root.roles["root"].keyids[0]
    repo.root.keys[keyid].unrecognized_fields["extra-field"] = {"a": 1, "b": 2}
    repo.root.roles["root"].unrecognized_fields["another-field"] = "value"
    repo.publish("root")
    assert client.refresh()
    assert client.trusted()["root"] == 2


# --- test_expiration, test_delegated_expiration ---


def test_root_expired(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    repo.publish("root")
    assert client.refresh()
    repo.root.expires = past(1)
    repo.publish("root")
    repo.publish("timestamp")
    assert not client.refresh()
    assert client.trusted() == {**ALL, "root": 3}  # kept first, then looked at (5.3.10)


@pytest.mark.parametrize("role", TOP)
def test_role_expired(client: Client, repo: Simulator, role: str) -> None:
    """test_timestamp_expired, test_snapshot_expired, test_targets_expired."""
    assert client.refresh()
    repo.of(role).expires = past(5)
    repo.publish(*TOP)
    assert not client.refresh()
    assert client.trusted()[role] == 1


def test_expired_metadata(client: Client, repo: Simulator) -> None:
    """What expired here is still what a newer one is measured by."""
    repo.of("timestamp").expires = datetime.now(UTC) + timedelta(days=7)
    repo.publish("timestamp")
    assert client.refresh()
    repo.of("timestamp").expires = datetime.now(UTC) + timedelta(days=21)
    repo.publish(*TOP)
    assert client.refresh(days=18)
    assert client.trusted() == {"root": 1, "timestamp": 3, "snapshot": 2, "targets": 2}


def delegated(repo: Simulator, expires: datetime) -> None:
    repo.delegate("targets", "delegated", paths=["delegatedpath/*"], expires=expires)
    repo.add_artifact("delegated", b"first", "delegatedpath/first")
    repo.add_artifact("delegated", b"second", "delegatedpath/second")
    repo.publish("delegated", *TOP)


def test_delegated_targets_expired(client: Client, repo: Simulator) -> None:
    delegated(repo, past(1))
    assert client.refresh()
    assert not client.download("delegatedpath/first")
    assert client.files() == []
    assert client.trusted() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}


def test_expired_local_delegated_targets(client: Client, repo: Simulator) -> None:
    delegated(repo, datetime.now(UTC) + timedelta(days=7))
    assert client.download("delegatedpath/first")
    assert client.files() == [b"first"]
    assert not client.download("delegatedpath/second", days=18)
    assert client.files() == [b"first"]


def test_expired_local_delegated_targets_updates(client: Client, repo: Simulator) -> None:
    delegated(repo, datetime.now(UTC) + timedelta(days=7))
    assert client.download("delegatedpath/first")
    repo.of("delegated").expires = datetime.now(UTC) + timedelta(days=21)
    repo.publish("delegated", *UP)
    assert client.download("delegatedpath/second", days=18)
    assert client.files() == [b"second"]  # of versions, only the newest is kept here


# --- test_rollback ---


def test_simple_snapshot_rollback(client: Client, repo: Simulator) -> None:
    repo.publish(*UP)
    assert client.refresh()
    repo.publish("snapshot", version=1)  # the timestamp that is served still says 2
    assert client.refresh()
    assert client.trusted()["snapshot"] == 2
    assert repo.asked[-1] == ("timestamp", None)


def test_new_timestamp_version_rollback(client: Client, repo: Simulator) -> None:
    repo.publish("timestamp")
    assert client.refresh()
    del repo.signed["timestamp"][2]
    assert not client.refresh()
    assert client.trusted()["timestamp"] == 2
    assert repo.asked[-1] == ("timestamp", None)


@pytest.mark.parametrize("with_hashes", [False, True])
def test_snapshot_rollback(client: Client, repo: Simulator, with_hashes: bool) -> None:
    repo.with_hashes = with_hashes
    repo.publish(*UP)
    assert client.refresh()
    repo.publish("snapshot", version=1)
    repo.publish("timestamp")
    assert not client.refresh()
    assert (client.trusted()["timestamp"], client.trusted()["snapshot"]) == (2, 2)
    assert repo.asked[-1] == ("timestamp", None)


@pytest.mark.parametrize("with_hashes", [False, True])
def test_targets_rollback(client: Client, repo: Simulator, with_hashes: bool) -> None:
    repo.with_hashes = with_hashes
    repo.publish("targets", version=2)
    repo.publish(*UP)
    assert client.refresh()
    repo.publish("targets", version=1)
    repo.publish(*UP)
    assert not client.refresh()
    # As python-tuf: the snapshot that names the older one is not taken, so its version stays.
    assert client.trusted()["targets"] == 2


def test_new_targets_fast_forward_recovery(client: Client, repo: Simulator) -> None:
    repo.publish("targets", version=100)
    repo.publish(*UP)
    assert client.refresh()
    assert client.trusted()["targets"] == 100
    repo.new_keys("snapshot")
    repo.publish("root")
    repo.publish("targets", version=1)
    repo.publish(*UP)
    assert client.refresh()
    assert client.trusted()["targets"] == 1


def test_new_snapshot_fast_forward_recovery(client: Client, repo: Simulator) -> None:
    repo.publish("snapshot", version=99999)
    repo.publish("timestamp")
    assert client.refresh()
    assert client.trusted()["snapshot"] == 99999
    repo.new_keys("snapshot")
    repo.new_keys("timestamp")
    repo.publish("root")
    repo.publish("snapshot", version=1)
    repo.publish("timestamp")
    assert client.refresh()
    assert client.trusted()["snapshot"] == 1


def test_new_timestamp_fast_forward_recovery(client: Client, repo: Simulator) -> None:
    repo.publish("timestamp", version=99999)
    assert client.refresh()
    assert client.trusted()["timestamp"] == 99999
    repo.new_keys("timestamp")
    repo.publish("root")
    repo.publish("timestamp", version=1)
    repo.signed["timestamp"] = {1: repo.signed["timestamp"][1]}
    assert client.refresh()
    assert client.trusted()["timestamp"] == 1


def test_new_snapshot_version_mismatch(client: Client, repo: Simulator) -> None:
    """The timestamp names a version; what is served under that name says another."""
    repo.publish("snapshot")
    repo.publish("timestamp")
    repo.signed["snapshot"][2] = repo.signed["snapshot"][1]
    assert not client.refresh()
    assert client.trusted() == {"root": 1, "timestamp": 2}
    assert repo.asked[-1] == ("snapshot", 2)


def test_the_suite_can_drive_us(client: Client, repo: Simulator, tmp_path: Path) -> None:
    """Its CLIENT-CLI, each command a process of its own: how theirs is run by hand (client.py says)."""
    repo.add_artifact("targets", b"an artifact", "path/to/artifact")
    repo.publish(*TOP)
    root, kept, files = tmp_path / "root.json", tmp_path / "kept", tmp_path / "files"
    root.write_bytes(client.trusted_root)
    kept.mkdir()
    files.mkdir()

    def run(*said: str) -> int:
        program = [sys.executable, "-m", "tests.update.conformance.client", "--metadata-dir", str(kept)]
        return subprocess.run([*program, *said], cwd=HOUSE, capture_output=True, timeout=120).returncode

    address = ("--metadata-url", f"{client.url}/metadata/")
    assert run("init", str(root)) == 0
    place = ("--target-name", "path/to/artifact", "--target-base-url", f"{client.url}/targets/")
    assert run(*address, *place, "--target-dir", str(files), "download") == 0
    assert [file.read_bytes() for file in files.iterdir()] == [b"an artifact"]
    repo.signers["timestamp"].popitem()
    repo.publish("timestamp")
    assert run(*address, "refresh") == 1
    versions = {file.stem: json.loads(file.read_bytes())["signed"]["version"] for file in kept.glob("*.json")}
    assert versions == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
