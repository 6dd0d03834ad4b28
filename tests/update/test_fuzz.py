"""What a hostile repository may say, by the thousand: never taken, never a crash, always an error of ours.

Two hands: one that can write to the server only, and one that has stolen every key below the root's. What the second
says is signed, so it may be believed; it may not break the host. APPLIANCE_TEST_FUZZ=20000 for as many cases of each.
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.serialization.json import CanonicalJSONSerializer

from appliance.errors import ApplianceError, UntrustedError
from appliance.host.layout import Layout
from appliance.host.slots import architecture
from appliance.payload import parse_index
from appliance.release import KeyRing, stage_file
from appliance.update import Task, work
from appliance.update.answer import parse_answer
from appliance.update.choosing import choose
from appliance.update.download import Assembly
from appliance.update.fetch import DirectoryFetcher
from appliance.update.offer import parse_offer
from appliance.update.policy import parse_policy
from appliance.update.progress import Progress
from tests.update.conformance.test_unusual import Raw
from tests.update.conftest import Publisher

CASES = int(os.environ.get("APPLIANCE_TEST_FUZZ", "60"))
many = settings(
    max_examples=CASES, deadline=None, database=None, derandomize=CASES < 1000,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
seeds = st.integers(0, 2**48)
PATH = f"alpha/2.0.0/{architecture()}/appliance"


@dataclass
class Site:
    """A repository, whose files are changed and put back, and the host that knows its first release."""

    publisher: Publisher
    layout: Layout
    known: Path  # what the host keeps, to begin each case with
    honest: dict[str, bytes]
    payload: bytes

    @property
    def directory(self) -> Path:
        return self.publisher.directory

    def current(self, name: str) -> Path:
        """The newest metadata of that role."""
        files = [file for file in (self.directory / "metadata").glob("*.json") if file.name.split(".")[-2] == name]
        return max(files, key=lambda file: int(file.name.split(".")[0]) if file.name[0].isdigit() else 0)

    def restore(self, *, new: bool = False) -> None:
        """``new``: the host has never been here."""
        for name, data in self.honest.items():
            if not (file := self.directory / name).exists() or file.read_bytes() != data:
                file.write_bytes(data)
        place = Path(self.layout.update)
        shutil.rmtree(place, ignore_errors=True)
        if not new:
            shutil.copytree(self.known, place)

    def ask(self, verb: str) -> dict[str, Any]:
        """As the daemon does: the worker's answer as it comes out of the pipe, and what is made of it."""
        task = Task(layout=self.layout, verb=verb, repository=str(self.directory), channel="alpha", path=PATH)
        answer = parse_answer(json.dumps(work(task)).encode())
        offers = [parse_offer(one) for one in answer.get("offers", ())]
        choose(offers, running="1.0.0", denied=(), channel="alpha", policy=parse_policy(answer.get("policy")),
               now=float(answer.get("time", 0)), seed="x")  # fmt: skip
        return answer


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before asking again."""
    monkeypatch.setattr("appliance.update.download._WAIT_FIRST", 0.0)
    monkeypatch.setattr("appliance.update.download._WAIT_MAX", 0.0)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # fsync costs nothing there
    with tempfile.TemporaryDirectory(dir=fast) as scratch:
        place = Path(scratch)
        (place / "files").mkdir()
        publisher = Publisher(place / "repository", place / "keys", place / "files")
        publisher.init()
        publisher.release("1.0.0")
        layout = Layout(str(place / "host"))
        Path(layout.trust_root).parent.mkdir(parents=True)
        Path(layout.trust_root).write_bytes(publisher.trust_root)
        work(Task(layout=layout, verb="refresh", repository=str(publisher.directory), channel="alpha"))
        shutil.copytree(layout.update, place / "known")
        payload = random.Random(5).randbytes(500_000) + b"much the same " * 20_000
        (place / "files/2.0.0").write_bytes(payload)
        stage_file(str(publisher.directory), str(place / "files/2.0.0"), channel="alpha", architecture=architecture(),
                   version="2.0.0", packed=True)  # fmt: skip
        publisher.publish()
        honest = {
            str(file.relative_to(publisher.directory)): file.read_bytes()
            for file in publisher.directory.rglob("*") if file.is_file()
        }  # fmt: skip
        yield Site(publisher, layout, place / "known", honest, payload)


def scribble(data: bytes, chance: random.Random) -> bytes:
    """Some bytes another way."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5, 40))):
        at, size = chance.randrange(len(changed) + 1), chance.choice((1, 1, 2, 8, 300))
        how = chance.randrange(6)
        if how == 0:
            changed[at : at + size] = chance.randbytes(size)
        elif how == 1:
            del changed[at : at + size]
        elif how == 2:
            changed[at:at] = chance.randbytes(size)
        elif how == 3:
            changed[at:at] = changed[at // 2 : at // 2 + size]
        elif how == 4 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        else:
            del changed[at:]
    return bytes(changed)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**70, "", "x", "1", "ü", "\0", "../../etc/passwd", "2.0.0", "a/b",
    "9" * 400,
    "2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "ab" * 32, [], {}, [[]], [None], ["x"], {"x": None}, {"version": 1},
    {"sha256": "ab" * 32}, [{"start": "now", "fraction": 2}], ["*"] * 200,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield from places(inner, (*path, name))


def twist(document: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One or a few of its values are others, are gone, or are somewhere else."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        found = [path for path in places(document) if path]
        if not found:
            break
        *way, last = chance.choice(found)
        holder: Any = document
        for name in way:
            holder = holder[name]
        how = chance.randrange(5)
        if how == 0:
            del holder[last]
        elif how == 1 and isinstance(holder, dict):
            holder[str(chance.choice(VALUES))[:50]] = holder.pop(last)
        elif how == 2:
            source: Any = document
            for name in chance.choice(found):
                source = source[name]
            holder[last] = copy.deepcopy(source)
        else:
            holder[last] = copy.deepcopy(chance.choice(VALUES))
    return document


def check(site: Site, *, signed: bool) -> str:
    """How it went: "refused", or "taken" - then it is what the publisher made, unless keys were stolen."""
    try:
        answer = site.ask("download")
    except ApplianceError as error:
        return "refused" if error.message.startswith("cannot ") else repr(error)
    if not signed:
        assert Path(answer["file"]).read_bytes() == site.payload
    return "taken"


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "alpha", "index", "pack"])
def test_whoever_can_only_write_to_the_server_gets_nothing_taken(site: Site, role: str) -> None:
    endings = {"index": ".appliance.index", "pack": ".appliance.pack"}
    if role in endings:
        (file,) = (site.directory / f"targets/{PATH}").parent.glob("*" + endings[role])
    elif role == "root":
        file = site.directory / "metadata/2.root.json"
        shutil.copy(site.directory / "metadata/1.root.json", file)
    else:
        file = site.current(role)
    honest = file.read_bytes()
    seen = Counter[str]()

    @many
    @given(seeds)
    def mutate(seed: int) -> None:
        chance = random.Random(seed)
        site.restore(new=role == "targets" or seed % 2 == 0)
        data = scribble(honest, chance)
        if role not in endings and chance.random() < 0.4:
            data = json.dumps(twist(json.loads(honest), chance)).encode()
        file.write_bytes(data)
        seen[check(site, signed=False)] += 1

    try:
        mutate()
    finally:
        file.unlink() if role == "root" else file.write_bytes(honest)
    assert set(seen) <= {"refused", "taken"}
    if role != "root":  # nobody asks for what is no root; and what is not signed of a file may be anything
        assert seen["refused"] > CASES * 0.4, seen


def _signed_anew(site: Site, role: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """That role says what it is made to say, and every role above it vouches for that."""
    ring = KeyRing(str(site.publisher.keys))
    for name in {"alpha": ("alpha", "snapshot", "timestamp"), "targets": ("targets", "snapshot", "timestamp"),
                 "snapshot": ("snapshot", "timestamp"), "timestamp": ("timestamp",)}[role]:  # fmt: skip
        file = site.current(name)
        document = json.loads(site.honest[str(file.relative_to(site.directory))])
        said = change(document["signed"]) if name == role else document["signed"]
        if name != role:
            for about in said["meta"].values():
                about.pop("length", None)
                about.pop("hashes", None)
        try:
            data = CanonicalJSONSerializer().serialize(Raw(said))  # type: ignore[arg-type]
        except Exception:  # what cannot be written so is not signed so
            data = b"x"
        keyids = [one["keyid"] for one in document["signatures"]]
        signatures = [signer.sign(data).to_dict() for signer in ring.signers(name, keyids, len(keyids))]
        file.write_text(json.dumps({"signatures": signatures, "signed": said}))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "alpha"])
def test_stolen_keys_break_no_host(site: Site, role: str) -> None:
    seen = Counter[str]()

    @many
    @given(seeds)
    def mutate(seed: int) -> None:
        chance = random.Random(seed)
        site.restore(new=role == "targets" or seed % 2 == 0)
        _signed_anew(site, role, lambda signed: twist(signed, chance))
        seen[check(site, signed=True)] += 1

    try:
        mutate()
    finally:
        site.restore()
    assert set(seen) <= {"refused", "taken"}
    assert seen["refused"] > CASES // 10, seen


def test_an_index_by_a_stolen_key_breaks_no_host(site: Site) -> None:
    """What it says is believed, so it is looked at as hard as the rest: the file is what it says, or nothing is."""
    (file,) = (site.directory / f"targets/{PATH}").parent.glob("*.appliance.index")
    (pack,) = (site.directory / f"targets/{PATH}").parent.glob("*.appliance.pack")
    honest, target = file.read_bytes(), Path(site.layout.update) / "made"
    head, about, table = honest.split(b"\n", 2)
    seen = Counter[str]()

    @many
    @given(seeds)
    def mutate(seed: int) -> None:
        import zstandard

        chance = random.Random(seed)
        site.restore()
        plain = zstandard.ZstdDecompressor().decompress(table, max_output_size=1 << 20)
        how = chance.randrange(3)
        if how == 0:
            data = scribble(honest, chance)
        elif how == 1:
            said = json.dumps(twist(json.loads(about), chance)).encode()
            data = head + b"\n" + said + b"\n" + table
        else:
            data = head + b"\n" + about + b"\n" + zstandard.ZstdCompressor().compress(scribble(plain, chance))
        try:
            index = parse_index(data, file="it")
            assembly = Assembly(index=index, fetcher=DirectoryFetcher(), url=str(pack), path=str(target),
                                progress=Progress(), sleep=lambda _: None)  # fmt: skip
            assembly.run()
        except ApplianceError as error:
            seen["refused" if error.message.startswith("cannot ") else repr(error)] += 1
        else:
            assert target.stat().st_size == index.length
            seen["made"] += 1

    mutate()
    assert set(seen) <= {"refused", "made"}
    assert seen["refused"] > CASES // 3, seen


def test_the_same_hand_twice_is_refused_twice(site: Site) -> None:
    """No case leaves anything that makes the next check another: the honest repository is taken right after."""
    site.restore()
    site.current("snapshot").write_bytes(b"{}")
    for _ in range(2):
        with pytest.raises(UntrustedError):
            site.ask("refresh")
    site.restore()
    assert Path(site.ask("download")["file"]).read_bytes() == site.payload
