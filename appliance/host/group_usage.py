"""What a group of processes uses: its cgroup's files, else sums over its processes (proc(5)). Read when asked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from appliance.host import bpf


@dataclass(frozen=True, kw_only=True)
class Usage:
    """None: cannot be known here. Without controllers, what processes used that are over is not in the sums."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    tasks: int | None = None
    io_read_bytes: int | None = None
    io_write_bytes: int | None = None
    ip_in_bytes: int | None = None
    ip_in_packets: int | None = None
    ip_out_bytes: int | None = None
    ip_out_packets: int | None = None


def usage(directory: str | None, pids: Iterable[int], *, counts_ip: bool = False) -> Usage:
    """``directory``: of its cgroup, where there is one; ``pids`` are asked for only what that does not tell.

    ``counts_ip``: it has programs that count what it sends and hears.
    """
    cpu = _cpu(directory) if directory else None
    memory = _number(f"{directory}/memory.current") if directory else None
    tasks = _number(f"{directory}/pids.current") if directory else None
    io = _io(directory) if directory else None
    read, written = io or (None, None)
    if cpu is None or memory is None or tasks is None or io is None:
        summed = _of_processes(pids)
        cpu = summed.cpu_seconds if cpu is None else cpu
        memory = summed.memory_bytes if memory is None else memory
        tasks = summed.tasks if tasks is None else tasks
        if io is None:
            read, written = summed.io_read_bytes, summed.io_write_bytes
    found = Usage(cpu_seconds=cpu, memory_bytes=memory, tasks=tasks, io_read_bytes=read, io_write_bytes=written)
    ip = bpf.traffic(directory) if directory and counts_ip else None
    if ip is None:
        return found
    return replace(
        found, ip_in_bytes=ip.in_bytes, ip_in_packets=ip.in_packets, ip_out_bytes=ip.out_bytes,
        ip_out_packets=ip.out_packets,
    )  # fmt: skip


def _text(path: str) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65536).decode(errors="replace")
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.strip().isdecimal() else None


def _cpu(directory: str) -> float | None:
    """The file is there without the controller, too."""
    for line in (_text(f"{directory}/cpu.stat") or "").splitlines():
        if line.startswith("usage_usec "):
            return int(line.split()[1]) / 1_000_000
    return None


def _io(directory: str) -> tuple[int, int] | None:
    text = _text(f"{directory}/io.stat")
    if text is None:
        return None
    read = written = 0
    for word in text.split():
        key, _, value = word.partition("=")
        if key == "rbytes":
            read += int(value)
        elif key == "wbytes":
            written += int(value)
    return read, written


def _of_processes(pids: Iterable[int]) -> Usage:
    ticks = pages = threads = read = written = 0
    knows_io = True
    for pid in pids:
        text = _text(f"/proc/{pid}/stat")
        if text is None:
            continue  # it ended meanwhile
        fields = text[text.rindex(")") + 2 :].split()
        ticks += sum(map(int, fields[11:15]))  # its own, and of children that it has waited for
        threads += int(fields[17])
        pages += int(fields[21])
        io = dict(line.split(": ") for line in (_text(f"/proc/{pid}/io") or "").splitlines() if ": " in line)
        knows_io = knows_io and "read_bytes" in io
        read += int(io.get("read_bytes", 0))
        written += int(io.get("write_bytes", 0))
    return Usage(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
        memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        tasks=threads,
        io_read_bytes=read if knows_io else None,
        io_write_bytes=written if knows_io else None,
    )
