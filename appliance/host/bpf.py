"""Programs that the kernel runs for a cgroup: loaded and attached by bpf(2). Nothing of them stays open with us: the
kernel keeps them as long as the cgroup, over our death, and lets them go with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from appliance.errors import UnavailableError

_CALLS = {"x86_64": 321, "aarch64": 280}  # bpf(2)
_MAP_CREATE, _MAP_LOOKUP, _LOAD, _ATTACH = 0, 1, 5, 8
_PROGRAM_BY_ID, _MAP_BY_ID, _INFO, _QUERY = 13, 14, 15, 16
_ARRAY = 2
_BESIDES_OTHERS = 2  # BPF_F_ALLOW_MULTI: groups below may have more of them, and ours holds there too
_TYPES = {  # of the program, and where it is attached
    "device": (15, 6), "ingress": (8, 0), "egress": (8, 1), "bind4": (18, 8), "bind6": (18, 9),
}  # fmt: skip
_COUNTER = struct.Struct("=QQ")
_LOG_BYTES = 1 << 16
_LOG_SHOWN = 600
_PROGRAMS_MAX = 64
_TRIES = 10
_NEVER = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL)  # no right to, or no such thing in this kernel
_DENY_ALL = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)

Hook = Literal["device", "ingress", "egress", "bind4", "bind6"]


@dataclass(frozen=True)
class Program:
    """``counts``: it looks for a map, in which ``traffic`` finds what passed."""

    hook: Hook
    code: bytes
    counts: bool = False


@dataclass(frozen=True)
class Traffic:
    """What passed since the programs were attached."""

    in_bytes: int
    in_packets: int
    out_bytes: int
    out_packets: int


@cache
def why_not() -> str:
    """Why this host takes no such programs from us; empty when it does, or when it only cannot now."""
    try:
        os.close(_load(Program("device", _DENY_ALL)))
    except UnavailableError as exc:
        if isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NEVER:
            return exc.message
    return ""


def attach(directory: str, programs: Iterable[Program]) -> None:
    """To that cgroup. Raises UnavailableError, with what the kernel's verifier said."""
    programs = tuple(programs)
    with contextlib.ExitStack() as open_:

        def kept(fd: int) -> int:
            open_.callback(os.close, fd)
            return fd

        try:
            group = kept(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            counters = kept(_new_map()) if any(one.counts for one in programs) else -1
            for one in programs:
                fd = kept(_load(one, counters))
                _call(_ATTACH, struct.pack("=IIII", group, fd, _TYPES[one.hook][1], _BESIDES_OTHERS))
        except OSError as exc:
            raise UnavailableError(f"cannot attach a BPF program to {directory}: {exc.strerror}") from exc


def traffic(directory: str) -> Traffic | None:
    """What the programs of that cgroup counted; None when none counts."""
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for number in _attached(group, "ingress"):
            for map_number in _maps_of(number):
                return _read(map_number)
    except OSError:
        pass
    finally:
        os.close(group)
    return None


def attached(directory: str) -> dict[str, int]:
    """How many programs that cgroup itself has, by where they are attached."""
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return {hook: len(numbers) for hook in _TYPES if (numbers := _attached(group, hook))}
    finally:
        os.close(group)


def _attached(group: int, hook: str) -> list[int]:
    numbers = (ctypes.c_uint32 * _PROGRAMS_MAX)()
    asked = struct.pack("=IIIIQII", group, _TYPES[hook][1], 0, 0, ctypes.addressof(numbers), _PROGRAMS_MAX, 0)
    answer = _call(_QUERY, asked)[1]
    return list(numbers[: struct.unpack_from("=I", answer, 24)[0]])


def _maps_of(number: int) -> Iterator[int]:
    """By struct bpf_prog_info: how many, and where to write them, at 52 and 56."""
    numbers = (ctypes.c_uint32 * 4)()
    with _opened(_PROGRAM_BY_ID, number) as fd:
        info = ctypes.create_string_buffer(64)
        struct.pack_into("=IQ", info, 52, 4, ctypes.addressof(numbers))
        _call(_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
        count = struct.unpack_from("=I", info, 52)[0]
    yield from numbers[: min(count, 4)]


def _read(number: int) -> Traffic:
    found: list[int] = []
    with _opened(_MAP_BY_ID, number) as fd:
        for place in (0, 1):
            key, value = ctypes.c_uint32(place), ctypes.create_string_buffer(_COUNTER.size)
            where = struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0)
            _call(_MAP_LOOKUP, where)
            found += _COUNTER.unpack(value.raw)
    return Traffic(*found)


@contextlib.contextmanager
def _opened(command: int, number: int) -> Iterator[int]:
    fd = _call(command, struct.pack("=III", number, 0, 0))[0]
    try:
        yield fd
    finally:
        os.close(fd)


def _new_map() -> int:
    return _call(_MAP_CREATE, struct.pack("=IIIIIII16s", _ARRAY, 4, _COUNTER.size, 2, 0, 0, 0, b"unit_traffic"))[0]


def _load(program: Program, counters: int = -1) -> int:
    """Its descriptor. Only when it is refused it is tried again with a log: that takes time and memory."""
    code = ctypes.create_string_buffer(_with_map(program.code, counters), len(program.code))
    license_ = ctypes.create_string_buffer(b"GPL")
    kind, place = _TYPES[program.hook]
    expected = 0 if program.hook == "device" else place
    log = b""

    def load(level: int, size: int, address: int) -> int:
        arguments = struct.pack(
            "=IIQQIIQII16sII", kind, len(program.code) // 8, ctypes.addressof(code), ctypes.addressof(license_),
            level, size, address, 0, 0, f"unit_{program.hook}".encode(), 0, expected,
        )  # fmt: skip
        return _call(_LOAD, arguments)[0]

    try:
        return load(0, 0, 0)
    except OSError as exc:
        if exc.errno not in (errno.EPERM, errno.ENOSYS):
            buffer = ctypes.create_string_buffer(_LOG_BYTES)
            with contextlib.suppress(OSError):
                os.close(load(1, _LOG_BYTES, ctypes.addressof(buffer)))
            log = buffer.value
        said = log.decode(errors="replace").strip()[-_LOG_SHOWN:]
        raise UnavailableError(
            f"cannot load a BPF program ({program.hook}): {exc.strerror}{': ' if said else ''}{said}"
        ) from exc


def _with_map(code: bytes, counters: int) -> bytes:
    """With the descriptor of the map where a step asks for one."""
    steps = bytearray(code)
    for at in range(0, len(steps), 8):
        if steps[at] == 0x18 and steps[at + 1] >> 4 == 1:
            struct.pack_into("=i", steps, at + 4, counters)
    return bytes(steps)


@cache
def _system_call() -> tuple[ctypes.CDLL, int]:
    return ctypes.CDLL(None, use_errno=True), _CALLS.get(os.uname().machine, -1)


def _call(command: int, arguments: bytes) -> tuple[int, bytes]:
    """Its answer, and what it made of the arguments."""
    libc, number = _system_call()
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    code = 0
    for _ in range(_TRIES):
        answer: int = libc.syscall(number, command, buffer, len(arguments))
        if answer >= 0:
            return answer, buffer.raw
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # a signal came while the kernel read the program
            break
    raise OSError(code, os.strerror(code))
