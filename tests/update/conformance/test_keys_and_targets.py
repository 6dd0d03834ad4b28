"""The same suite: its cases of keys, names, target files, delegations and key rotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from appliance.errors import UntrustedError
from tests.update.conformance.simulator import TOP, UP, Client, Simulator

FIRST = [("root", 2), ("timestamp", None), ("snapshot", 1), ("targets", 1)]
ALL = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


# --- test_keys ---


@pytest.mark.parametrize(
    "make",
    [lambda: CryptoSigner.generate_rsa(scheme="rsassa-pss-sha256"),
     lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"), CryptoSigner.generate_ecdsa,
     CryptoSigner.generate_ed25519],
    ids=["rsa/rsassa-pss-sha256", "rsa/rsa-pkcs1v15-sha256", "ecdsa/ecdsa-sha2-nistp256", "ed25519/ed25519"],
)  # fmt: skip
def test_keytype_and_scheme(client: Client, repo: Simulator, make: Any) -> None:
    signer = repo.add_key("root", make())
    repo.root.roles["root"].threshold = 2
    repo.publish("root")
    assert client.refresh()
    assert client.trusted()["root"] == 2
    repo.publish("root")
    said = json.loads(repo.signed["root"][3])
    for one in said["signatures"]:
        if one["keyid"] == signer.public_key.keyid:  # as long, but of something else
            one["sig"] = signer.sign(b"something else").signature
    repo.signed["root"][3] = json.dumps(said).encode()
    assert not client.refresh()
    assert client.trusted()["root"] == 2


def test_root_has_keys_but_not_snapshot(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    repo.add_key("snapshot")
    repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 3
    repo.publish("root", *UP)
    assert client.refresh()
    repo.root.roles["snapshot"].threshold = 5
    for _ in range(2):  # keys of the root that sign nothing
        signer = CryptoSigner.generate_ed25519()
        repo.root.add_key(signer.public_key, "snapshot")
    repo.publish("root", *UP)
    assert not client.refresh()
    assert (client.trusted()["root"], client.trusted()["snapshot"]) == (3, 2)


def test_snapshot_threshold(client: Client, repo: Simulator) -> None:
    assert client.refresh()
    for _ in range(4):
        repo.add_key("snapshot")
    repo.root.roles["snapshot"].threshold = 6
    repo.publish("root", *UP)
    assert not client.refresh()
    assert client.trusted()["snapshot"] == 1


def test_wrong_hashing_algorithm(client: Client, repo: Simulator) -> None:
    """keyid_hash_algorithms is none of the specification's: whatever it says harms nobody."""
    assert client.refresh()
    keyid = repo.root.roles["snapshot"].keyids[0]
    repo.root.keys[keyid].unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repo.publish("root", *UP)
    assert client.refresh()
    assert (client.trusted()["root"], client.trusted()["snapshot"]) == (2, 2)


def test_duplicate_keys_root(client: Client, repo: Simulator) -> None:
    """One key under ten names is one key."""
    assert client.refresh()
    signer = CryptoSigner.generate_ed25519()
    said = signer.public_key.to_dict()
    for number in range(9):
        key = type(signer.public_key).from_dict(f"{number:064x}", json.loads(json.dumps(said)))
        repo.root.keys[key.keyid] = key
        repo.root.roles["snapshot"].keyids.append(key.keyid)
    repo.root.roles["snapshot"].threshold = 6
    repo.publish("root", "snapshot")
    md = json.loads(repo.signed["snapshot"][2])
    good = signer.sign(_signed_bytes(repo)).signature
    md["signatures"] += [{"keyid": f"{number:064x}", "sig": good} for number in range(9)]
    repo.signed["snapshot"][2] = json.dumps(md).encode()
    repo.publish("timestamp")
    assert not client.refresh()
    assert client.trusted()["snapshot"] == 1


def _signed_bytes(repo: Simulator) -> bytes:
    from tuf.api.serialization.json import CanonicalJSONSerializer

    return CanonicalJSONSerializer().serialize(repo.of("snapshot"))


# --- test_quoting_issues ---


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole"])
def test_unusual_role_name(client: Client, repo: Simulator, role: str) -> None:
    from urllib.parse import quote

    repo.delegate("targets", role)
    repo.publish(role, *TOP)
    assert not client.download("nonexistent target")
    assert (quote(role, ""), 1) in repo.asked
    assert len(client.trusted()) == 5
    assert {path.name for path in client.metadata.parent.iterdir()} == {"metadata"}


# --- test_file_download ---


def test_client_downloads_expected_file(client: Client, repo: Simulator) -> None:
    repo.add_artifact("targets", b"target file contents", "target_file.txt")
    repo.publish(*TOP)
    assert client.refresh()
    assert client.files() == []
    assert client.download("target_file.txt")
    assert client.files() == [b"target file contents"]


def test_client_downloads_expected_file_in_sub_dir(client: Client, repo: Simulator) -> None:
    repo.add_artifact("targets", b"target file contents", "path/to/a/target_file.txt")
    repo.publish(*TOP)
    assert client.download("path/to/a/target_file.txt")
    assert client.files() == [b"target file contents"]


def test_artifact_cache(client: Client, repo: Simulator) -> None:
    repo.add_artifact("targets", b"target file contents", "target_file.txt")
    repo.publish(*TOP)
    assert client.download("target_file.txt")
    assert client.download("target_file.txt")
    assert repo.fetched == ["target_file.txt"]


def test_repository_substitutes_target_file(client: Client, repo: Simulator) -> None:
    repo.add_artifact("targets", b"target file contents", "target_file.txt")
    repo.add_artifact("targets", b"content", "another_target_file.txt")
    repo.publish(*TOP)
    assert client.download("target_file.txt")
    for path in repo.artifacts:
        repo.artifacts[path] = b"malicious data - should not download"
    client.download("target_file.txt")
    assert client.files() == [b"target file contents"]
    assert not client.download("another_target_file.txt")
    assert b"malicious data - should not download" not in client.files()


def test_multiple_changes_to_target(client: Client, repo: Simulator) -> None:
    for number in range(11):
        good = f"modified file contents {number}".encode()
        repo.add_artifact("targets", good, "target_file.txt")
        repo.publish(*TOP)
        if number % 5 == 0:
            assert client.download("target_file.txt")
            assert client.files() == [good]
            repo.artifacts["target_file.txt"] = f"malicious contents {number}".encode()
            repo.publish(*TOP)
            client.download("target_file.txt")
            assert client.files() == [good]


# --- test_updater_delegation_graphs ---

Edge = tuple[str, str] | tuple[str, str, dict[str, Any]]
PY: dict[str, Any] = {"paths": ["*.py"]}
LAST: dict[str, Any] = {"terminating": True}
GRAPHS: dict[str, tuple[list[Edge], str]] = {
    "basic-delegation": ([("targets", "A")], "A"),
    "single-level-delegations": ([("targets", "A"), ("targets", "B")], "AB"),
    "two-level-delegations": ([("targets", "A"), ("targets", "B"), ("B", "C")], "ABC"),
    "two-level-test-DFS-order-of-traversal": ([("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "ACDB"),
    "three-level-delegation-test-DFS-order-of-traversal": (
        [("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "ACDB",
    ),
    "two-level-terminating-ignores-all-but-roles-descendants": (
        [("targets", "A"), ("targets", "B"), ("A", "C", LAST), ("A", "D")], "AC",
    ),
    "three-level-terminating-ignores-all-but-roles-descendants": (
        [("targets", "A"), ("targets", "B"), ("A", "C", LAST), ("C", "D")], "ACD",
    ),
    "two-level-ignores-all-branches-not-matching-paths": (
        [("targets", "A", PY), ("targets", "B"), ("A", "C")], "B",
    ),
    "three-level-ignores-all-branches-not-matching-paths": (
        [("targets", "A"), ("targets", "B"), ("A", "C", PY), ("C", "D")], "AB",
    ),
    "cyclic-graph": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), ("D", "B")], "ABCD"),
    "two-roles-delegating-to-a-third": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")], "ACB"),
    "two-roles-delegating-to-a-third-different-paths": (
        [("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C", PY)], "ABC",
    ),
}  # fmt: skip


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_traversal(client: Client, repo: Simulator, graph: str) -> None:
    edges, order = GRAPHS[graph]
    for above, name, *more in edges:
        repo.delegate(above, name, **(more[0] if more else {}))
    repo.publish(*sorted({name for _, name, *_ in edges}), *TOP)
    assert not client.download("missingpath")
    assert repo.asked[4:] == [(role, 1) for role in order]


@pytest.mark.parametrize(
    ("path", "order"),
    [("targetfile", ""), ("README.md", "A"), ("releases/x/x_v1", "BC"), ("releases/y/y_v1.zip", "BD"),
     ("releases/z/z_v1.zip", None)],
)  # fmt: skip
def test_targetfile_search(client: Client, repo: Simulator, path: str, order: str | None) -> None:
    repo.delegate("targets", "A", paths=["*.doc", "*.md"])
    repo.delegate("targets", "B", paths=["releases/*/*"])
    repo.delegate("B", "C", paths=["releases/x/*"])
    repo.delegate("B", "D", paths=["releases/y/*.zip"])
    for role, name in (("targets", "targetfile"), ("A", "README.md"), ("C", "releases/x/x_v1"),
                       ("D", "releases/y/y_v1.zip"), ("D", "releases/z/z_v1.zip")):  # fmt: skip
        repo.add_artifact(role, f"by {role}".encode(), name)
    repo.publish("A", "B", "C", "D", *TOP)
    assert client.download(path) is (order is not None)
    assert client.files() == ([repo.artifacts[path]] if order is not None else [])
    assert repo.asked[4:] == [(role, 1) for role in ("B" if order is None else order)]


def test_cached_role_is_verified_against_current_delegator(client: Client, repo: Simulator, tmp_path: Path) -> None:
    """C has the keys that A gave it, not those that B did: what it says counts below A only. In one process."""
    repo.delegate("targets", "A", paths=["a/*"])
    repo.delegate("targets", "B", paths=["b/*"])
    repo.delegate("A", "C", paths=["a/*"])
    signers = dict(repo.signers["C"])
    repo.delegate("B", "C", paths=["b/*"])
    repo.signers["C"] = signers
    for path in ("a/x", "b/x"):
        repo.add_artifact("C", path.encode(), path)
    repo.publish("A", "B", "C", *TOP)
    host = client.open()
    host.refresh()
    assert host.locate("a/x")[0].length == 3
    with pytest.raises(UntrustedError, match="C was signed by 0/1 keys"):
        host.locate("b/x")
    assert host.locate("a/x")[0].length == 3
    host.close()


def test_max_root_rotations(client: Client, repo: Simulator) -> None:
    """However many roots there are, the walk ends: 256 after those that were known."""
    for _ in range(260):
        repo.publish("root")
    assert client.refresh()
    assert client.trusted()["root"] == 257
    assert client.refresh()
    assert client.trusted()["root"] == 261


# --- test_updater_key_rotations ---


@dataclass(frozen=True)
class Signed:
    """Which keys a role has, how many must sign, which do, and whether that is enough."""

    keys: str
    threshold: int
    signs: str
    good: bool = True


ROOTS = {
    "1-of-1-key-rotation": [Signed("1", 1, "1"), Signed("2", 1, "21"), Signed("2", 1, "2")],
    "1-of-1-key-rotation-unused-signatures": [Signed("1", 1, "314"), Signed("2", 1, "3214"), Signed("2", 1, "324")],
    "3-of-5-sign-with-different-keycombos": [
        Signed("01234", 3, "024"), Signed("01234", 3, "041"), Signed("01234", 3, "013"), Signed("01234", 3, "013"),
    ],
    "3-of-5-one-key-rotated": [Signed("01234", 3, "024"), Signed("01345", 3, "041")],
    "3-of-5-one-key-rotated-with-intermediate-step": [
        Signed("01234", 3, "024"), Signed("01345", 3, "0245"), Signed("01345", 3, "045"),
    ],
    "3-of-5-all-keys-rotated-with-intermediate-step": [
        Signed("01234", 3, "024"), Signed("56789", 3, "024567"), Signed("56789", 3, "567"),
    ],
    "1-of-3-threshold-increase-to-2-of-3": [Signed("123", 1, "1"), Signed("123", 2, "12")],
    "2-of-3-threshold-decrease-to-1-of-3": [Signed("123", 2, "12"), Signed("123", 1, "12"), Signed("123", 1, "1")],
    "1-of-2-threshold-increase-to-2-of-2": [Signed("1", 1, "1"), Signed("12", 2, "12")],
    "1-of-1-key-rotation-fail-not-signed-with-old-key": [Signed("1", 1, "1"), Signed("2", 1, "234", False)],
    "1-of-1-key-rotation-fail-not-signed-with-new-key": [Signed("1", 1, "1"), Signed("2", 1, "134", False)],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": [
        Signed("01234", 3, "024"), Signed("01345", 3, "024", False),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": [
        Signed("01234", 3, "024"), Signed("01345", 3, "045", False),
    ],
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": [
        Signed("123", 1, "1"), Signed("123", 2, "2", False),
    ],
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached": [
        Signed("123", 2, "12"), Signed("123", 1, "1", False),
    ],
}  # fmt: skip
OTHERS = {
    "1-of-1-key-rotation": Signed("2", 1, "2"),
    "1-of-1-key-rotation-unused-signatures": Signed("1", 1, "314"),
    "1-of-1-key-rotation-fail-not-signed-with-new-key": Signed("2", 1, "134", False),
    "3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": Signed("01345", 3, "024", False),
    "2-of-5-one-key-signature-mising-threshold-not-reached": Signed("01345", 3, "04", False),
    "3-of-5-sign-first-combo": Signed("01234", 3, "024"),
    "3-of-5-sign-second-combo": Signed("01234", 3, "041"),
    "3-of-5-sign-third-combo": Signed("01234", 3, "013"),
    "3-of-5-sign-fourth-combo": Signed("01234", 3, "123"),
    "3-of-5-sign-fifth-combo": Signed("01234", 3, "234"),
}
SIGNERS = [CryptoSigner.generate_ed25519() for _ in range(10)]


def sign_so(repo: Simulator, role: str, so: Signed) -> None:
    repo.root.roles[role].keyids.clear()
    repo.root.roles[role].threshold = so.threshold
    for number in so.keys:
        repo.root.add_key(SIGNERS[int(number)].public_key, role)
    chosen = [SIGNERS[int(number)] for number in so.signs]
    repo.signers[role] = {signer.public_key.keyid: signer for signer in chosen}


@pytest.mark.parametrize("case", ROOTS)
def test_root_rotation(client: Client, repo: Simulator, case: str) -> None:
    repo.signed["root"].clear()
    repo.root.version = 0
    for so in ROOTS[case]:
        sign_so(repo, "root", so)
        repo.publish("root")
    client.trusted_root = repo.signed["root"][1]
    good = ROOTS[case][-1].good
    assert client.refresh() is good
    last = len(ROOTS[case]) if good else len(ROOTS[case]) - 1
    assert client.trusted()["root"] == last
    assert (client.metadata / f"root_history/{last}.root.json").read_bytes() == repo.signed["root"][last]


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("role", TOP)
def test_non_root_rotations(client: Client, repo: Simulator, role: str, case: str) -> None:
    sign_so(repo, role, OTHERS[case])
    repo.publish("root", *TOP)
    assert client.refresh() is OTHERS[case].good
    if OTHERS[case].good:
        assert (client.metadata / f"{role}.json").read_bytes() == repo.signed[role][2]
