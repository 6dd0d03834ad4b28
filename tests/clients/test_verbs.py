"""Every verb of etcdctl, in each of its formats, says the same of `appliance etcd` as of a real etcd of its version."""

from __future__ import annotations

import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from appliance.etcdapi.pb import rpc_pb2 as pb
from tests.clients.conftest import StartStore
from tests.clients.test_etcdctl import PROGRAMS, program
from tests.clients.verbs import FORMATS, SUBJECTS, Step
from tests.etcdapi.test_transcript import free_port, normal

pytestmark = pytest.mark.slow

NUMBERS = (
    "ID|member_?id|leader|raft_?index|raft_?applied_?index|db_?size(?:_?in_?use)?|hash|cluster_?id|raft_?term|lease"
)
PATIENCE = {"ETCDCTL_DIAL_TIMEOUT": "40s", "ETCDCTL_COMMAND_TIMEOUT": "40s"}  # 5 s is little where all is busy
KNOWN = {  # (subject, step) where the etcd of 3.4.23, or of 3.5.1, is not what we are
    ("members and upkeep", "alarm list -w json"),  # 3.4 has no header here, and its etcdctl stumbles over that
}


@pytest.fixture
def real(clients: Path, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a real etcd of that version; yields its HOST:PORT."""
    with ExitStack() as stack:

        def start(version: str) -> str:
            client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
            process = subprocess.Popen(
                [program(version, clients, "etcd"), "--data-dir", str(tmp_path / peer[-5:]), "--listen-client-urls",
                 client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
                stderr=subprocess.PIPE, text=True, errors="replace",
            )  # fmt: skip
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stderr is not None
            lines = iter(process.stderr)
            assert any("ready to serve client requests" in line for line in lines)
            drain = threading.Thread(target=lambda: [None for _ in lines])  # else it stops when the pipe is full
            drain.start()
            stack.callback(drain.join)
            stack.callback(process.kill)
            return client.removeprefix("http://")

        yield start


def same(text: str, address: str) -> str:
    """Without what two servers cannot have in common."""
    text = normal(text, address)
    text = re.sub(rf'("(?:{NUMBERS})" ?: ?)\d+', r"\1N", text, flags=re.IGNORECASE)
    text = re.sub(r'"took" ?: ?"[^"]*"', '"took":T', text, flags=re.IGNORECASE)
    text = re.sub(r"\b\d+\.\d+(ms|µs|s)\b", "T", text)
    text = re.sub(r"\b[\d.]+ [kM]?B\b", "SIZE", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"\b3\.[45]\.\d+\b", "VERSION", text)
    text = re.sub(r"(ENDPOINT|URL), \d+$", r"\1, HASH", text, flags=re.MULTILINE)
    text = re.sub(r"(true, false, \d+), \d+, \d+,", r"\1, INDEX, INDEX,", text)
    # An etcd tells them in any order.
    text = re.sub(r"attached keys\(\[(.*?)\]\)", lambda found: f"attached keys {sorted(found[1].split())}", text)
    text = re.sub(r" +", " ", text)
    text = re.sub(r"(\| true \| false \| \d+) \| \d+ \| \d+ \|", r"\1 | INDEX | INDEX |", text)
    return re.sub(r"-{3,}", "---", text)


class Speaker:
    """One etcdctl with one server."""

    def __init__(self, etcdctl: str, address: str) -> None:
        self._command = ["timeout", "-s", "INT", "60", etcdctl, "--endpoints", address]
        self._address = address
        self._lease = ""

    def say(self, step: Step) -> tuple[str, int]:
        arguments = shlex.split(step[0].replace("{lease}", self._lease))
        done = subprocess.run(
            [*self._command, *arguments], input=step[1].encode(), capture_output=True, check=False,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin", **PATIENCE},
        )  # fmt: skip
        said = done.stdout
        if step[0].endswith("-w protobuf") and not done.returncode:
            said = without_ids(said)
        text = said.decode(errors="backslashreplace")
        granted = re.match(r"lease ([0-9a-f]{16}) granted", text)
        self._lease = granted[1] if granted else self._lease
        errors = done.stderr.decode(errors="backslashreplace").splitlines(keepends=True)
        text += "".join(line for line in errors if not line.startswith('{"level"'))
        return same(text, self._address), done.returncode


def without_ids(said: bytes) -> bytes:
    """Any answer has its header in field 1; the rest is kept as bytes."""
    answer = pb.DefragmentResponse.FromString(said)
    for name in ("cluster_id", "member_id", "raft_term"):
        answer.header.ClearField(name)
    if b"default" in said:  # members: their ids and addresses
        members = pb.MemberListResponse.FromString(said).members
        return str([(member.name, len(member.peerURLs), len(member.clientURLs)) for member in members]).encode()
    return answer.SerializeToString().hex().encode()


@pytest.mark.parametrize("version", PROGRAMS)
def test_every_verb(version: str, clients: Path, ours: StartStore, real: Callable[[str], str]) -> None:
    differing = []
    etcdctl = program(version, clients)
    for subject, steps in SUBJECTS.items():
        if subject == "limits" and version != PROGRAMS[0]:
            continue  # what a server refuses does not depend on the client
        speakers = [Speaker(etcdctl, address) for address in (ours(), real(version))]
        with ThreadPoolExecutor(2) as pool:
            for step in steps:
                if version != PROGRAMS[0] and step[0].endswith(("-w table", "-w fields")):
                    continue  # the same code prints them
                we, they = pool.map(lambda speaker, step=step: speaker.say(step), speakers)
                if we != they and (subject, step[0]) not in KNOWN:
                    differing.append((subject, step[0][:200], step[1][:200], we, they))
    assert not differing, "\n".join(map(str, differing))


HISTORY = [
    "put w/a 1", "put w/a 2", "put w/b 1", "del w/a", "put other 1", "put w/a 3", "del w/ --prefix", "put w/a END",
]  # fmt: skip
WATCHES = [
    "watch --prefix w/ --rev=1", "watch w/a --rev=3", "watch w/a w/c --rev=1 --prev-kv",
    "watch --rev=2 w/ --prefix -- env",
]  # fmt: skip


@pytest.mark.parametrize("version", PROGRAMS)
def test_every_watch(version: str, clients: Path, ours: StartStore, real: Callable[[str], str]) -> None:
    """What is shown of one history; also when asked for interactively."""
    etcdctl = program(version, clients)
    addresses = ours(), real(version)
    for address in addresses:
        for change in HISTORY:
            assert Speaker(etcdctl, address).say((change, ""))[1] == 0
    commands = [(f"{watch} -w {form}", "") for watch in WATCHES[:3] for form in FORMATS[:3]]
    commands += [(WATCHES[3], ""), ("watch -i", "watch w/a --rev=3\n")]
    for arguments, stdin in commands:
        with ThreadPoolExecutor(2) as pool:
            we, they = pool.map(lambda address: watched(etcdctl, address, arguments, stdin), addresses)  # noqa: B023
        assert we == they, arguments
        assert we


def watched(etcdctl: str, address: str, arguments: str, stdin: str) -> str:
    """Until the last change was shown."""
    process = subprocess.Popen(
        ["timeout", "-s", "INT", "60", etcdctl, "--endpoints", address, *shlex.split(arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(stdin)
    process.stdin.flush()
    heard: list[str] = []
    for line in process.stdout:
        heard.append(line)
        if re.search(r"\bEND\b|RU5E", line):
            break
    process.terminate()
    process.communicate(timeout=60)
    return same("".join(line for line in heard if not re.match(r"(PATH|PWD|SHLVL|_|ETCDCTL_API)=", line)), address)
