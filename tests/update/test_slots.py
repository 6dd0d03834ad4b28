"""The slots' sequences, cut at every call: old or new, never neither; the real disk does the same."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.errors import ApplianceError, UnavailableError, UntrustedError
from appliance.host.slots import RealSlotCalls
from appliance.update.record import SlotName, SlotRecord, format_copy, other, pick
from appliance.update.slots import Slots
from tests.sim.slotcalls import PowerLost, SimSlotCalls

V1, V2, V3 = (f"version {n}\n".encode() * 300 for n in (1, 2, 3))
BASE = "c" * 64


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fresh(calls: SimSlotCalls) -> Slots:
    """Slot a holds V1, blessed; V2 lies downloaded."""
    calls.put_durable("/download/v1", V1)
    calls.put_durable("/download/v2", V2)
    slots = Slots(calls, "/slots")
    slots.load()
    slots.seed("/download/v1", version="1.0", base=BASE)
    return slots


def started(calls: SimSlotCalls, base: str = BASE) -> bytes:
    """What the launcher would start after a boot, by its own rules: the bytes of the program."""
    slots = Slots(calls, "/slots")
    record = slots.load()
    if record is None:
        link = calls.names.get("/slots/current")
        return calls.read(f"/slots/{link}/appliance", size_max=9999) if isinstance(link, str) else b"origin"
    if record.base != base:
        return b"origin"
    there = SlotRecord(a=record.a if slots.holds("a") or calls.exists(slots.file("a")) else replace(record.a, tries=0,
                       blessed=False), b=record.b if calls.exists(slots.file("b")) else replace(record.b, tries=0,
                       blessed=False))  # fmt: skip
    name = pick(there)
    return b"origin" if name is None else calls.read(slots.file(name), size_max=9999)


def install(slots: Slots) -> None:
    slot = slots.slot("b")
    slot.clear()
    slot.write("/download/v2")
    slot.verify(sha256=sha(V2), length=len(V2))
    slot.arm(version="2.0", sha256=sha(V2), tries=2, deadline=60)


def bless(slots: Slots) -> None:
    install(slots)
    slots.slot("b").bless()


def condemn(slots: Slots) -> None:
    install(slots)
    slots.slot("b").condemn()


def count_calls(act: Callable[[Slots], None]) -> int:
    calls = SimSlotCalls()
    slots = fresh(calls)
    before = calls.calls
    act(slots)
    return calls.calls - before


@pytest.mark.parametrize("act", [install, bless, condemn])
def test_cut_anywhere_and_a_whole_version_starts(act: Callable[[Slots], None]) -> None:
    cuts = 0
    for number in range(1, count_calls(act) + 1):
        for seed in range(12):
            calls = SimSlotCalls(seed)
            slots = fresh(calls)
            calls.cut_at = calls.calls + number
            with pytest.raises(PowerLost):
                act(slots)
            cuts += 1
            assert started(calls) in (V1, V2), (number, seed)
            # And the next attempt goes through, whatever is left over.
            calls.cut_at = 0
            again = Slots(calls, "/slots")
            record = again.load()
            assert record is not None
            assert record.a.blessed or record.b.blessed
            if pick(record) == "a" and not record.b.blessed:
                install(again)
                assert started(calls) == V2
    assert cuts > 150


def test_seeding_cut_anywhere_starts_the_dropped_file_or_the_slot() -> None:
    def seed_again(slots: Slots) -> None:
        slots.seed("/download/v3", version="3.0", base="d" * 64)

    calls = SimSlotCalls()
    slots = fresh(calls)
    before = calls.calls
    calls.put_durable("/download/v3", V3)
    seed_again(slots)
    assert started(calls, "d" * 64) == V3
    for number in range(1, calls.calls - before + 1):
        for seed in range(12):
            calls = SimSlotCalls(seed)
            slots = fresh(calls)
            calls.put_durable("/download/v3", V3)
            calls.cut_at = calls.calls + number
            with pytest.raises(PowerLost):
                seed_again(slots)
            assert started(calls, "d" * 64) in (b"origin", V3)  # origin is the dropped file itself
            calls.cut_at = 0
            again = Slots(calls, "/slots")
            again.load()
            seed_again(again)
            assert started(calls, "d" * 64) == V3
            assert again.record is not None
            assert pick(again.record.condemned(pick(again.record) or "a")) is not None  # there is a way back


@pytest.mark.parametrize("act", [install, bless, condemn])
def test_a_full_disk_anywhere_leaves_what_runs(act: Callable[[Slots], None]) -> None:
    for number in range(1, count_calls(act) + 1):
        calls = SimSlotCalls()
        slots = fresh(calls)
        calls.fail_at = calls.calls + number
        with contextlib.suppress(UnavailableError):
            act(slots)
            assert "No space left" in slots.link_problem  # all but the link for the worst case is done
        assert started(calls) in (V1, V2)
        calls.fail_at = 0
        assert slots.load() is not None


def test_what_a_full_disk_kept_from_being_written_does_not_stay(tmp_path: Path) -> None:
    calls = RealSlotCalls()
    slots = Slots(calls, str(tmp_path / "slots"))
    source = tmp_path / "source"
    source.write_bytes(V1)
    slots.seed(str(source), version="1.0", base=BASE)
    slots.slot("b").clear()

    def full(path: str) -> None:
        raise UnavailableError(f"cannot sync {path}: No space left on device")

    calls.sync = full  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="No space left"):
        slots.slot("b").write(str(source))
    assert list((tmp_path / "slots/b").iterdir()) == []


def test_one_broken_copy_of_the_record_is_healed_by_the_next_write() -> None:
    for broken in (0, 1):
        calls = SimSlotCalls()
        slots = fresh(calls)
        calls.write_at("/slots/record", broken * 4096, b"\xff" * 4096)
        assert slots.load() is not None
        install(slots)
        data = calls.read("/slots/record", size_max=8192)
        assert data[:4096] == data[4096:]
        assert started(calls) == V2


def test_both_copies_broken_is_said() -> None:
    calls = SimSlotCalls()
    slots = fresh(calls)
    calls.write_at("/slots/record", 0, b"\xff" * 8192)
    assert slots.load() is None
    assert "neither copy is whole" in slots.problem
    assert started(calls) == V1  # by the link


def test_wrong_bytes_never_get_the_name() -> None:
    calls = SimSlotCalls()
    slots = fresh(calls)
    slot = slots.slot("b")
    slot.clear()
    slot.write("/download/v2")
    with pytest.raises(UntrustedError, match="read back"):
        slot.verify(sha256=sha(V1), length=len(V2))
    assert not calls.exists(slots.file("b"))
    assert not calls.exists(slots.file("b") + ".tmp")


def test_a_try_that_the_launcher_spent_meanwhile_is_not_lost() -> None:
    calls = SimSlotCalls()
    slots = fresh(calls)
    install(slots)
    assert slots.record is not None
    spent = replace(slots.record, sequence=slots.record.sequence + 1, b=replace(slots.record.b, tries=1))
    calls.write_at("/slots/record", 4096, format_copy(spent))
    slots.slot("b").bless()
    assert slots.record.sequence == spent.sequence + 1


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_real_disk(tmp_path: Path, name: SlotName) -> None:
    slots = Slots(RealSlotCalls(), str(tmp_path / "state/slots"))
    assert slots.load() is None
    (tmp_path / "v1").write_bytes(V1)
    (tmp_path / "v2").write_bytes(V2)
    running = slots.seed(str(tmp_path / "v1"), version="1.0", base=BASE)
    if name == running:
        slots.slot(other(running)).clear()
        return
    slot = slots.slot(name)
    slot.clear()
    slot.write(str(tmp_path / "v2"))
    slot.verify(sha256=sha(V2), length=len(V2))
    slot.arm(version="2.0", sha256=sha(V2), tries=3, deadline=60)
    slot.bless()
    assert Path(slots.file(name)).read_bytes() == V2
    assert Path(slots.file(name)).stat().st_mode & 0o777 == 0o755
    assert Path(slots.directory, "current").readlink() == Path(name)
    assert Path(slots.record_file).stat().st_size == 8192
    again = Slots(RealSlotCalls(), slots.directory)
    assert again.load() == slots.record
    assert again.holds("a")
    assert again.holds("b")
    with pytest.raises(ApplianceError, match="No such file"):
        slot.write(str(tmp_path / "nothing"))
