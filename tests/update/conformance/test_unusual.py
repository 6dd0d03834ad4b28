"""Metadata that is unusual: what is valid all the same is taken, for a host must not be lost by it; the rest is not.

All of it is signed as it should be: so speaks a publisher with other tools, or one whose keys are stolen.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.serialization.json import CanonicalJSONSerializer

import appliance.update.trust as trust
from tests.update.conformance.simulator import TOP, UP, Client, Simulator

Bend = Callable[[dict[str, Any]], object]


class Raw:
    """Content that no python-tuf would make."""

    def __init__(self, signed: dict[str, Any]) -> None:
        self.signed = signed

    def to_dict(self) -> dict[str, Any]:
        return self.signed


def bend(repo: Simulator, role: str, change: Bend, names: Iterable[str] = ()) -> None:
    """The newest of that role, changed, and signed anew as it is then; its keys sign under all these ``names``, too."""
    newest = max(repo.signed[role])
    signed = json.loads(repo.signed[role][newest])["signed"]
    change(signed)
    data = CanonicalJSONSerializer().serialize(Raw(signed))  # type: ignore[arg-type]
    made = [signer.sign(data) for signer in repo.signers[role].values()]
    signatures = [one.to_dict() for one in made] + [{"keyid": name, "sig": made[0].signature} for name in names]
    repo.signed[role][newest] = json.dumps({"signatures": signatures, "signed": signed}).encode()


def test_a_chain_of_a_hundred_roots_each_by_another_key(client: Client, repo: Simulator) -> None:
    for _ in range(100):
        old = next(iter(repo.signers["root"].values()))
        repo.new_keys("root")
        repo.signers["root"][old.public_key.keyid] = old
        repo.publish("root")
    assert client.refresh()
    assert client.trusted()["root"] == 101
    del repo.signed["root"][60]  # what was seen is not asked for again
    assert client.refresh()


def test_who_was_away_for_very_many_roots_is_not_lost(
    client: Client, repo: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many new ones at once, and on from there with the next check."""
    monkeypatch.setattr(trust, "_ROOTS_AT_ONCE", 10)
    for _ in range(25):
        repo.publish("root")
    for reached in (11, 21, 26):
        assert client.refresh()
        assert client.trusted()["root"] == reached


@pytest.mark.parametrize("strange", [{"keytype": "ml-dsa-2040", "scheme": "x"}, {"keytype": "rsa", "scheme": "new"}])
@pytest.mark.parametrize("role", ["root", "timestamp", "targets"])
def test_a_key_of_an_unknown_kind_harms_nobody_and_counts_for_nobody(
    client: Client, repo: Simulator, role: str, strange: dict[str, str]
) -> None:
    assert client.refresh()
    name = "ab" * 32

    def add(signed: dict[str, Any]) -> None:
        signed["keys"][name] = {**strange, "keyval": {"public": "00", "and": ["more"]}, "odd": 1}
        signed["roles"][role]["keyids"].append(name)

    repo.publish("root")
    bend(repo, "root", add)
    assert client.refresh()
    assert client.trusted()["root"] == 2
    repo.publish("root", *TOP)
    bend(repo, "root", lambda signed: (add(signed), signed["roles"][role].update(threshold=2)), [name])
    newest = max(repo.signed[role])
    bend(repo, role, lambda _: None, [name]) if role != "root" else None
    assert not client.refresh()
    assert client.trusted()[role] == newest - 1


def test_key_ids_need_not_be_hashes(client: Client, repo: Simulator) -> None:
    """They are names (TAP 12)."""
    repo.root.roles["timestamp"].keyids.clear()
    signer = repo.signers["timestamp"].popitem()[1]
    signer.public_key.keyid = "the timestamp's key"
    repo.add_key("timestamp", signer)
    repo.publish("root", "timestamp")
    assert client.refresh()
    assert client.trusted()["timestamp"] == 2


@pytest.mark.parametrize("write", [str.upper, lambda public: f" {public}\n"], ids=["upper case", "spaces"])
def test_one_key_written_in_two_ways_is_one(client: Client, repo: Simulator, write: Callable[[str], str]) -> None:
    assert client.refresh()
    repo.publish("root", "timestamp")

    def twice(signed: dict[str, Any]) -> None:
        (first,) = signed["roles"]["timestamp"]["keyids"]
        again = copy.deepcopy(signed["keys"][first])
        again["keyval"]["public"] = write(again["keyval"]["public"])
        signed["keys"]["another"] = again
        signed["roles"]["timestamp"].update(keyids=[first, "another"], threshold=2)

    bend(repo, "root", twice)
    bend(repo, "timestamp", lambda _: None, ["another"])
    assert not client.refresh()
    assert client.trusted()["timestamp"] == 1


def test_one_pem_key_written_in_two_ways_is_one() -> None:
    from appliance.update.tuf_keys import same_key

    key, other = (CryptoSigner.generate_ecdsa().public_key for _ in range(2))
    assert same_key(key) != same_key(other)
    again = copy.deepcopy(key)
    lines = again.keyval["public"].split("\n")
    again.keyval["public"] = "\r\n".join([lines[0], "".join(lines[1:-2]), *lines[-2:]])
    assert again.keyval != key.keyval
    assert same_key(again) == same_key(key)


GOOD: dict[str, tuple[str, Bend]] = {
    "many keys": ("root", lambda s: s["keys"].update(
        {f"{n:064x}": next(iter(s["keys"].values())) for n in range(2000)})),
    "names of keys that are nowhere": ("root", lambda s: s["roles"]["snapshot"]["keyids"].extend(["00" * 32, "none"])),
    "fields everywhere": ("root", lambda s: [one.update({"x-new": {"deep": [1, None]}}) for one in
                                             (s, *s["keys"].values(), *s["roles"].values())]),
    "fields of a timestamp": ("timestamp", lambda s: (s.update({"x": 1}), s["meta"]["snapshot.json"].update(y=[2]))),
    "fields of a snapshot": ("snapshot", lambda s: (s.update({"x": 1}), s["meta"]["targets.json"].update(y={"z": 2}))),
    "fields of targets": ("targets", lambda s: s.update({"x": None, "targets": {"a b/ü": {
        "length": 0, "hashes": {"sha256": "00", "blake3": "11"}, "z": 1, "custom": {"any": True}}}})),
    "a later specification": ("root", lambda s: s.update(spec_version="1.99.3")),
    "a very large version": ("timestamp", lambda s: s.update(version=2**70)),
    "a threshold of one among many": ("root", lambda s: s["roles"]["timestamp"]["keyids"].extend(
        f"{n:064x}" for n in range(500))),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_what_is_unusual_but_valid_is_taken(client: Client, repo: Simulator, case: str) -> None:
    assert client.refresh()
    role, change = GOOD[case]
    repo.publish("root", *TOP)
    bend(repo, role, change)
    assert client.refresh(), client.last_error
    assert client.trusted()[role] >= 2
    assert client.refresh(), client.last_error


def _threshold(value: object) -> Bend:
    return lambda signed: signed["roles"]["timestamp"].update(threshold=value)


BAD: dict[str, tuple[str, Bend]] = {
    **{f"threshold {value!r}": ("root", _threshold(value)) for value in (0, -1, True, False, "1", None, [], 2**70)},
    **{f"version {value!r}": ("timestamp", lambda s, value=value: s.update(version=value))  # type: ignore[misc]
       for value in (0, -1, "2", None, [], {})},
    **{f"expires {value!r}": ("timestamp", lambda s, value=value: s.update(expires=value))  # type: ignore[misc]
       for value in ("", "never", 4102444800, None, "2999-01-01", "2999-13-01T00:00:00Z", "1970-01-01T00:00:00Z")},
    "two of a key's name": ("root", lambda s: s["roles"]["timestamp"].update(
        keyids=s["roles"]["timestamp"]["keyids"] * 2)),
    "no keys": ("root", lambda s: s.pop("keys")),
    "keys in a list": ("root", lambda s: s.update(keys=list(s["keys"].values()))),
    "no role of timestamp": ("root", lambda s: s["roles"].pop("timestamp")),
    "another type": ("timestamp", lambda s: s.update(_type="snapshot")),
    "no type": ("timestamp", lambda s: s.pop("_type")),
    "specification 2": ("timestamp", lambda s: s.update(spec_version="2.0.0")),
    "specification none": ("timestamp", lambda s: s.update(spec_version="x")),
    "snapshot of version 0": ("timestamp", lambda s: s["meta"]["snapshot.json"].update(version=0)),
    "snapshot of no version": ("timestamp", lambda s: s["meta"]["snapshot.json"].pop("version")),
    "snapshot of length -1": ("timestamp", lambda s: s["meta"]["snapshot.json"].update(length=-1)),
    "snapshot without a hash": ("timestamp", lambda s: s["meta"]["snapshot.json"].update(hashes={})),
    "no snapshot": ("timestamp", lambda s: s.update(meta={})),
    "a hash that is a list": ("timestamp", lambda s: s["meta"]["snapshot.json"].update(hashes={"sha256": []})),
    "an unknown hash only": ("timestamp", lambda s: s["meta"]["snapshot.json"].update(hashes={"sha9": "00"})),
    "no targets": ("snapshot", lambda s: s.update(meta={})),
    "targets in a list": ("targets", lambda s: s.update(targets=[])),
    "a target of negative length": ("targets", lambda s: s.update(
        targets={"a": {"length": -1, "hashes": {"sha256": "00"}}})),
    "a role that delegates to the root": ("targets", lambda s: s.update(delegations={"keys": {}, "roles": [
        {"name": "root", "keyids": [], "threshold": 1, "terminating": False, "paths": ["*"]}]})),
    "roles of two kinds": ("targets", lambda s: s.update(delegations={"keys": {}, "roles": [], "succinct_roles": {
        "keyids": [], "threshold": 1, "bit_length": 1, "name_prefix": "x"}})),
}  # fmt: skip


TAKEN = (f"threshold {2**70}", "an unknown hash only")  # nothing is wrong in itself; it cannot be met


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_valid_is_refused_whoever_signed_it(client: Client, repo: Simulator, case: str) -> None:
    assert client.refresh()
    role, change = BAD[case]
    repo.publish("root", *TOP)
    bend(repo, role, change)
    assert not client.refresh()
    assert client.last_error.startswith("cannot trust "), client.last_error
    assert client.trusted()["targets"] == 1
    if case not in TAKEN:
        assert client.trusted()[role] == 1


def test_the_same_signature_many_times(client: Client, repo: Simulator) -> None:
    """The specification forbids it; it would not count twice either."""
    assert client.refresh()
    repo.publish("timestamp")
    said = json.loads(repo.signed["timestamp"][2])
    said["signatures"] *= 50
    repo.signed["timestamp"][2] = json.dumps(said).encode()
    assert not client.refresh()
    assert client.trusted()["timestamp"] == 1


def test_signatures_of_strangers_and_empty_ones_are_no_harm(client: Client, repo: Simulator) -> None:
    repo.publish(*UP)
    said = json.loads(repo.signed["timestamp"][2])
    said["signatures"] += [{"keyid": f"{number:064x}", "sig": "", "x": 1} for number in range(60)]
    said["x-more"] = {"a": []}
    repo.signed["timestamp"][2] = json.dumps(said).encode()
    assert client.refresh(), client.last_error


def test_whatever_length_is_signed_a_host_reads_so_much_and_no_more(client: Client, repo: Simulator) -> None:
    """The keys of the timestamp are online: who stole them may not fill the host's memory."""
    assert client.refresh()
    repo.publish(*UP)
    repo.signed["snapshot"][2] += b" " * trust.METADATA_LENGTH_MAX
    bend(repo, "timestamp", lambda signed: signed["meta"]["snapshot.json"].update(length=2**50))
    assert not client.refresh()
    assert "it is longer than" in client.last_error
    repo.publish(*UP)
    assert client.refresh(), client.last_error
