"""What is on the disk, and when: the launcher's system calls in their order. A power cut may come between any two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.binary import fake
from tests.binary.fake import Host
from tests.launcher.conftest import COPY

pytestmark = pytest.mark.binary


def calls(host: Host, *command: str | Path) -> list[str]:
    """Lines of strace, descriptors with their paths, until the program itself is started."""
    trace = host.root.parent / "trace"
    host.run(*command, wrap=["strace", "-f", "-y", "-s", "40", "-o", trace])
    return [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines()]


def place_of(lines: list[str], pattern: str) -> int:
    found = [number for number, line in enumerate(lines) if re.search(pattern, line)]
    assert len(found) == 1, f"{pattern}: {[lines[number] for number in found]}"
    return found[0]


def test_what_is_unpacked_is_durable_before_it_gets_its_name(host: Host) -> None:
    file = host.file("1.0")
    lines = calls(host, file)
    named = place_of(lines, r'^rename\(.*\.tmp\.')
    synced = {match[1] for line in lines[:named] if (match := re.match(r"fsync\(\d+<(.+)>\) += 0", line))}
    temp = re.search(r'"([^"]+)"', lines[named])
    assert temp is not None
    assert synced == {temp[1], *(f"{temp[1]}/{name}" for name in ("VERSION", "BUILT", "BEHAVIOUR", "appliance"))}
    assert place_of(lines, rf"^fsync\(\d+<{host.cache}>\) += 0") > named
    assert place_of(lines, rf'^execve\("{host.cache}/{fake.payload_id(file)}/appliance"') > named


def test_a_try_is_spent_on_the_disk_before_the_new_version_starts(host: Host) -> None:
    origin = host.file("1.0")
    a = host.slot("a", "1.5") + " priority=2 tries=0 blessed=1"
    host.record(a, host.slot("b", "2.0", "die") + " priority=3 tries=1 blessed=0")
    trace = host.root.parent / "trace"
    host.start(origin, "run", wrap=["strace", "-f", "-y", "-o", trace])
    host.wait_for_starts(2)
    lines = [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines()]
    record = re.escape(f"{host.slots}/record")
    writes = [line for line in lines if re.match(rf"(pwrite64|fdatasync)\(\d+<{record}>", line)]
    assert [line.split("(")[0] for line in writes] == ["pwrite64", "fdatasync"] * 2
    assert [line.split(", ")[-1].split(")")[0] for line in writes[::2]] == [str(COPY), "0"]  # the older copy first
    assert lines.index(writes[-1]) < place_of(lines, rf'^execve\("{host.slots}/b/appliance"')
