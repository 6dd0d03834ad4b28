"""The launcher's own C code for the slot record, called from Python: what it reads, picks and spends."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

from appliance.update.record import COPY_SIZE, SLOTS, SlotName

_LAUNCHER = Path(__file__).parents[2] / "packaging/launcher"
_WORD = 72


class _Slot(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_char * _WORD), ("sha256", ctypes.c_char * _WORD),
        ("priority", ctypes.c_long), ("tries", ctypes.c_long), ("blessed", ctypes.c_bool),
    ]  # fmt: skip


class _Record(ctypes.Structure):
    _fields_ = [
        ("sequence", ctypes.c_uint64), ("base", ctypes.c_char * _WORD), ("slot", _Slot * 2),
        ("deadline_seconds", ctypes.c_long),
    ]  # fmt: skip


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as place:
        file = f"{place}/record.so"
        command = ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-o", file, _LAUNCHER / "record.c"]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(file)
    library.record_pick.argtypes = [ctypes.POINTER(_Record), ctypes.POINTER(ctypes.c_bool), ctypes.c_bool]
    library.record_spend.restype = ctypes.c_bool
    return library


class CRecord:
    """The file's bytes as the C program takes them; ``newest`` is -1 when neither copy is whole."""

    def __init__(self, data: bytes) -> None:
        self._data = data[: 2 * COPY_SIZE].ljust(2 * COPY_SIZE, b"\0")  # it reads into a buffer of zeros
        self._record = _Record()
        self.newest = int(_library().record_newest(self._data, ctypes.byref(self._record)))
        self.sequence = -1 if self.newest < 0 else int(self._record.sequence)
        self.base = self._record.base.decode()

    def pick(self, exists: dict[SlotName, bool], *, may_try: bool) -> SlotName | None:
        """``record_pick``."""
        there = (ctypes.c_bool * 2)(*(exists[name] for name in SLOTS))
        picked = int(_library().record_pick(ctypes.byref(self._record), there, may_try))
        return None if picked < 0 else SLOTS[picked]

    def blessed(self, slot: SlotName) -> bool:
        """Of its entry."""
        return bool(self._record.slot[SLOTS.index(slot)].blessed)

    def spend(self, slot: SlotName) -> list[tuple[int, bytes]]:
        """``record_spend``: the writes that the launcher makes, in its order, each synced; none when it cannot."""
        out = ctypes.create_string_buffer(COPY_SIZE)
        copy = self._data[self.newest * COPY_SIZE : (self.newest + 1) * COPY_SIZE]
        if not _library().record_spend(copy, SLOTS.index(slot), out):
            return []
        return [(number * COPY_SIZE, out.raw) for number in (1 - self.newest, self.newest)]
