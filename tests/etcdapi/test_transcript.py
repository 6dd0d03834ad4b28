"""Debian's etcdctl says the same of us as of a real etcd: output byte for byte, and exit code, after normalising ids.

Each transcript is one shell-free list of (arguments, standard input). ``{lease}`` is the lease granted last.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import trio

from tests.etcdapi.serving import serving

pytestmark = pytest.mark.skipif(not (shutil.which("etcdctl") and shutil.which("etcd")), reason="needs etcd, etcdctl")

Step = tuple[str, str]

TRANSCRIPTS: dict[str, list[Step]] = {
    "put and get": [
        ("put foo bar", ""), ("put foo bar2 --prev-kv", ""), ("get foo", ""), ("get foo --print-value-only", ""),
        ("get nope", ""), ("get foo -w json", ""), ("get foo -w fields", ""), ("put foo1 a", ""), ("put foo2 b", ""),
        ("get --prefix foo --keys-only", ""), ("get foo foo2", ""), ("get --from-key foo1", ""),
        ("get --prefix foo --limit 2", ""), ("get --prefix foo --limit 2 -w json", ""),
        ("get --prefix foo --order DESCEND --sort-by KEY", ""), ("get --prefix foo --sort-by MODIFY", ""),
        ("get --prefix foo --sort-by VERSION --order ASCEND", ""),
        ("get --prefix foo --sort-by VALUE --order DESCEND", ""),
        ("get --prefix foo --sort-by CREATE --order DESCEND --limit 1", ""),
        ("get foo --rev=2", ""), ("get foo --rev=999999", ""), ("del foo1 --prev-kv", ""), ("del nope", ""),
        ("get foo1 --rev=5", ""), ("del --prefix foo --prev-kv", ""), ("get --prefix foo", ""), ("get EMPTY", ""),
        ("put foo again -w json", ""), ("get foo -w json", ""), ("del foo -w json", ""),
    ],
    "refusals": [
        ("put k --ignore-value", ""), ("put --ignore-lease nokey v", ""), ("get EMPTY", ""), ("put EMPTY v", ""),
        ("put k v", ""), ("put k --ignore-value", ""), ("put --ignore-lease k w", ""), ("get k -w json", ""),
        ("put k v --lease=1234", ""), ("lease revoke 1234", ""), ("lease timetolive 1234", ""),
        ("lease keep-alive --once 1234", ""), ("get k --rev=-1", ""),
    ],
    "transactions": [
        ("put foo bar2", ""),
        ("txn", 'value("foo") = "bar2"\n\nput foo yes\nget foo\n\nput foo no\n\n'),
        ("txn", 'mod("foo") > "0"\nver("foo") > "100"\n\nput x y\n\nget foo\n\n'),
        ("txn -w json", 'create("foo") = "2"\n\nget foo\nput a b\nget a\ndel foo\nget foo\n\n\n'),
        ("txn", 'value("none") = ""\n\nput no no\n\nput yes yes\n\n'),
        ("txn", 'mod("none") = "0"\n\nput one 1\n\nput two 2\n\n'),
        ("txn", '\nput same 1\nput same 2\n\n\n'),
        ("txn", '\ndel --prefix sa\nput same 2\n\n\n'),
        ("txn", '\nget foo\n\n\n'), ("txn -w json", '\nget foo\n\n\n'), ("txn -w json", '\ndel nothing\n\n\n'),
        ("get --prefix EMPTY -w json", ""),
    ],
    "leases": [
        ("lease grant 1", ""), ("lease list", ""), ("lease revoke {lease}", ""), ("lease grant 100", ""),
        ("put lk v --lease={lease}", ""), ("put lk2 v --lease={lease}", ""), ("put lk2 v", ""),
        ("lease timetolive {lease} --keys", ""), ("lease timetolive {lease}", ""),
        ("lease keep-alive --once {lease}", ""), ("lease revoke {lease}", ""), ("get --prefix lk", ""),
        ("lease grant 9000000001", ""),
    ],
    "compaction": [
        ("put foo 1", ""), ("put foo 2", ""), ("put foo 3", ""), ("compact 3", ""), ("compact 3", ""),
        ("get foo --rev=2", ""), ("get foo --rev=3", ""), ("compact 99", ""), ("compact 4 --physical", ""),
        ("get foo", ""), ("watch foo --rev=2", ""), ("defrag", ""),
    ],
    "users and roles": [
        ("auth enable", ""), ("user list", ""), ("user add root:pw", ""), ("user add root:pw", ""), ("auth enable", ""),
        ("user grant-role root none", ""), ("role add root", ""), ("role add root", ""), ("role list", ""),
        ("user grant-role root root", ""), ("user grant-role root root", ""), ("user get root", ""),
        ("user get none", ""), ("role get none", ""), ("user delete none", ""), ("role delete none", ""),
        ("user add cert --no-password", ""), ("user list", ""), ("role add r1", ""),
        ("role grant-permission r1 readwrite foo --prefix=true", ""), ("role get r1", ""), ("role get r1 -w json", ""),
        ("role grant-permission r1 read a", ""), ("role grant-permission r1 write b c", ""),
        ("role grant-permission r1 write a", ""), ("role grant-permission r1 read z --from-key", ""),
        ("role grant-permission none read z", ""), ("role get r1", ""), ("role revoke-permission r1 a", ""),
        ("role revoke-permission r1 a", ""), ("role revoke-permission r1 b c", ""), ("role get r1", ""),
        ("user revoke-role root r1", ""), ("role revoke-permission none a", ""), ("role get root", ""),
        ("user add EMPTY --no-password", ""), ("role add EMPTY", ""), ("auth disable", ""), ("get foo -w json", ""),
        ("--user root:pw get foo", ""),
    ],
    "authentication": [
        ("put foo bar", ""), ("put other x", ""), ("user add root:pw", ""), ("role add root", ""),
        ("user grant-role root root", ""), ("auth enable", ""), ("get foo", ""), ("--user root:pw get foo", ""),
        ("--user root:bad get foo", ""), ("--user none:bad get foo", ""), ("put foo x", ""), ("del foo", ""),
        ("txn", '\nget foo\n\n\n'), ("watch foo --rev=1", ""), ("lease grant 100", ""), ("compact 1", ""),
        ("user list", ""), ("role list", ""), ("auth disable", ""), ("endpoint hashkv", ""), ("defrag", ""),
        ("member list", ""), ("user get root", ""), ("role get root", ""),
        ("--user root:pw user add u:p", ""), ("--user root:pw user add c --no-password", ""),
        ("--user c:p get foo", ""), ("--user u:p get foo", ""), ("--user root:pw role add r", ""),
        ("--user root:pw role grant-permission r read foo --prefix", ""),
        ("--user root:pw role grant-permission r write foo foo5", ""),
        ("--user root:pw role grant-permission r write foo5 foo9", ""),
        ("--user root:pw user grant-role u r", ""), ("--user u:p get foo", ""), ("--user u:p get --prefix foo", ""),
        ("--user u:p get --prefix fo", ""), ("--user u:p get --from-key foo", ""), ("--user u:p get other", ""),
        ("--user u:p put foo1 y", ""), ("--user u:p put foo9 y", ""), ("--user u:p del foo2 foo8", ""),
        ("--user u:p del foo2 foo99", ""), ("--user u:p put foo1 z --prev-kv", ""),
        ("--user u:p txn", 'value("foo1") = "z"\n\nput foo2 a\nget foo2\n\nget foo\n\n'),
        ("--user u:p txn", 'value("other") = "z"\n\nput foo2 a\n\nget foo\n\n'),
        ("--user u:p txn", 'value("foo1") = "z"\n\nput other a\n\nget foo\n\n'),
        ("--user u:p watch other --rev=1", ""), ("--user u:p user get u", ""), ("--user u:p user get root", ""),
        ("--user u:p role get r", ""), ("--user u:p role get root", ""), ("--user u:p user list", ""),
        ("--user u:p role add x", ""), ("--user u:p auth disable", ""), ("--user u:p defrag", ""),
        ("--user u:p lease grant 100", ""), ("--user root:pw put other w --lease={lease}", ""),
        ("--user u:p put foo1 w --lease={lease}", ""), ("--user u:p lease revoke {lease}", ""),
        ("--user root:pw lease revoke {lease}", ""), ("--user root:pw get other", ""),
        ("--user root:pw user delete root", ""), ("--user root:pw user revoke-role root root", ""),
        ("--user root:pw role delete root", ""), ("--user root:pw role delete r", ""), ("--user u:p get foo", ""),
        ("--user root:pw user get u", ""), ("--user root:pw user passwd u --interactive=false", "new\n"),
        ("--user u:p get foo", ""), ("--user root:pw auth enable", ""), ("--user root:pw get foo -w json", ""),
        ("--user root:pw user delete u", ""), ("--user u:new get foo", ""),
        ("--user root:pw auth disable", ""), ("get foo", ""),
    ],
    "the rest": [
        ("member list", ""), ("alarm list", ""), ("alarm disarm", ""), ("move-leader 1", ""), ("endpoint health", ""),
        ("member remove 1234", ""), ("member promote 1234", ""), ("lock l1 -- echo holding", ""),
        ("get --prefix l1", ""), ("user list", ""), ("version", ""),
    ],
}  # fmt: skip
KNOWN = {  # where we mean to differ
    ("authentication", "endpoint hashkv"): "3.4 says it in the words of its insides; 3.5 as we do",
    ("authentication", "defrag"): "the same",
    ("authentication", "--user u:p defrag"): "the same",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(endpoint: str, step: Step, lease: str) -> tuple[str, int, str]:
    arguments, stdin = step
    command = [each if each != "EMPTY" else "" for each in arguments.replace("{lease}", lease).split()]
    done = subprocess.run(
        ["etcdctl", "--endpoints", endpoint, *command], input=stdin, capture_output=True, text=True, timeout=60,
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    errors = "".join(line for line in done.stderr.splitlines(keepends=True) if not line.startswith('{"level"'))
    granted = re.match(r"lease ([0-9a-f]{16}) granted", done.stdout)
    return normal(done.stdout + errors, endpoint), done.returncode, granted[1] if granted else lease


def normal(text: str, endpoint: str) -> str:
    text = re.sub(r'("(?:cluster_id|member_id|raft_term)":|"(?:ClusterID|MemberID|RaftTerm)" : )\d+', r"\1N", text)
    text = re.sub(r"http://[0-9.:]+", "URL", text)
    text = text.replace(endpoint, "ENDPOINT")
    text = re.sub(r"took = [0-9.]+(ms|µs)", "took = T", text)
    text = re.sub(r"remaining\(\d+s\)", "remaining(R)", text)
    text = re.sub(r"\b[0-9a-f]{15,16}\b", "HEX", text)
    return re.sub(r"endpoint://client-[0-9a-f-]+", "CLIENT", text)


def transcript(endpoint: str, steps: list[Step]) -> list[tuple[str, str, int]]:
    lease, found = "", []
    for step in steps:
        text, code, lease = say(endpoint, step, lease)
        found.append((" ".join(step).strip(), text, code))
    return found


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory):
    """Starts a fresh real etcd for each call; all are stopped in the end."""
    started: list[subprocess.Popen] = []

    def start() -> str:
        client, peer = free_port(), free_port()
        directory = tmp_path_factory.mktemp("etcd")
        process = subprocess.Popen(
            ["etcd", "--data-dir", str(directory), "--listen-client-urls", f"http://127.0.0.1:{client}",
             "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"default=http://127.0.0.1:{peer}"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if "ready to serve client requests" in line:
                break
        else:
            raise AssertionError("etcd did not start")
        return f"127.0.0.1:{client}"

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(TRANSCRIPTS))
async def test_etcdctl_sees_an_etcd(name: str, etcd, tmp_path: Path) -> None:
    theirs = await trio.to_thread.run_sync(lambda: transcript(etcd(), TRANSCRIPTS[name]))
    async with serving(tmp_path) as (address, _):
        ours = await trio.to_thread.run_sync(transcript, address, TRANSCRIPTS[name])
    pairs = enumerate(zip(ours, theirs, strict=True))
    assert [pair for at, pair in pairs if pair[0] != pair[1] and (name, TRANSCRIPTS[name][at][0]) not in KNOWN] == []
