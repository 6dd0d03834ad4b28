"""Units as an administrator meets them, with the built binary: one story for each part of what units can do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app.daemon import PATIENCE, SETTINGS, Daemon, is_alive, wait_until

pytestmark = pytest.mark.binary

NOTIFY = """
import os, signal, socket, struct, sys, time
def say(text, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as raw:
        raw.connect(os.environ["NOTIFY_SOCKET"])
        socket.send_fds(raw, [text.encode()], list(fds))
if os.environ.get("LISTEN_FDS"):
    print("given back", os.environ["LISTEN_FDNAMES"], os.pread(3, 20, 0).decode(), flush=True)
else:
    kept = os.memfd_create("kept")
    os.write(kept, b"treasure")
    say("FDSTORE=1\\nFDNAME=box", [kept])
def reload(*_):
    say(f"RELOADING=1\\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    print("read anew", flush=True)
    say("READY=1\\nSTATUS=serving again")
signal.signal(signal.SIGHUP, reload)
say("READY=1\\nSTATUS=serving")
while not os.path.exists(sys.argv[1]):
    say("WATCHDOG=1")
    time.sleep(0.1)
os.unlink(sys.argv[1])
time.sleep(1000)
"""
TALK = """
import os, socket
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


class Node:
    """A host below a directory, its unit files, and the commands."""

    def __init__(self, binary: Path, root: Path) -> None:
        self.binary, self.root = binary, root
        self.units = root / "etc/appliance/units"
        self.units.mkdir(parents=True)
        (root / "etc/appliance/appliance.toml").write_text(SETTINGS)
        self.daemon: Daemon | None = None

    def start(self) -> Daemon:
        self.daemon = Daemon([str(self.binary)], self.root)
        return self.daemon.expect_ready()

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.process.kill()
        self.daemon.wait()

    def file(self, name: str, text: str) -> None:
        (self.units / f"{name}.toml").write_text(text)

    def __call__(self, *words: str, code: int = 0, text: str | None = None) -> str:
        done = subprocess.run(
            [self.binary, "--root", self.root, *words], capture_output=True, text=True, timeout=PATIENCE, input=text
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout + (done.stderr if code else "")

    def unit(self, name: str) -> dict[str, object]:
        found: list[dict[str, object]] = json.loads(self("unit", "list", name, "-o", "json"))["units"]
        return found[0] if found else {}

    def reach(self, name: str, **wanted: object) -> dict[str, object]:
        def there() -> dict[str, object] | None:
            unit = self.unit(name)
            return unit if wanted.items() <= unit.items() else None

        found: dict[str, object] = wait_until(there, f"{name} to be {wanted}")
        return found

    def logged(self, name: str, text: str) -> None:
        wait_until(lambda: text in self("unit", "logs", name), f"{text!r} in the log of {name}")


@pytest.fixture
def node(binary: Path, tmp_path: Path) -> Iterator[Node]:
    tmp_path.chmod(0o755)
    node = Node(binary, tmp_path)
    yield node
    if node.daemon is not None:
        if node.daemon.process.poll() is not None:
            node.start()  # it was killed: whatever runs on is stopped in order
        node.daemon.clean_up()


def free_port() -> int:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        return int(raw.getsockname()[1])


def ask(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stream:
        return stream.makefile().read()


def test_life_of_a_unit_that_speaks_for_itself(node: Node, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(NOTIFY)
    node.file(
        "web", "[service]\ntype = 'notify-reload'\n"
        f"command = ['python3', '{tmp_path}/program.py', '{tmp_path}/silent']\n"
        "watchdog_timeout = '3s'\npost_stop = 'sh -c \"echo over: $SERVICE_RESULT\"'\n[restart]\ndelay = '10ms'",
    )  # fmt: skip
    node.start()
    unit = node.reach("web", state="ready", status_text="serving", stored_descriptors=1)
    assert node("unit", "reload", "web") == "web: reloaded\n"
    node.reach("web", status_text="serving again", pid=unit["pid"])
    node.logged("web", "read anew")
    node("unit", "restart", "web")
    node.logged("web", "given back box treasure")
    (tmp_path / "silent").touch()  # from now on it says nothing: the watchdog bites
    node.logged("web", "over: watchdog")
    wait_until(lambda: node.unit("web")["restarts"] or 0, "a restart")  # type: ignore[call-overload]
    node.reach("web", state="ready", status_text="serving")


def test_a_target_with_all_kinds_of_ties(node: Node) -> None:
    node.file("app", "[unit]\nrequires = ['db']\nwants = ['work@1', 'work@2.service']\nafter = ['db']")
    node.file("db", "[unit]\npart_of = ['app']\n[service]\ncommand = 'sleep infinity'")
    node.file(
        "work@", "[unit]\ndescription = 'worker %i'\npart_of = ['app']\nafter = ['db']\n"
        "[service]\ncommand = ['sh', '-c', 'echo I am %n; exec sleep infinity']",
    )  # fmt: skip
    node.file("other", "[unit]\nconflicts = ['app']\n[service]\ncommand = 'sleep infinity'")
    node("unit", "disable", "other")  # no daemon needed
    node.start()
    node.reach("work@2", state="ready", description="worker 2")
    node.logged("work@1", "I am work@1")
    plan = node("unit", "plan", "start", "other")
    assert "stop app (conflicts with other)" in plan
    assert "stop db (is part of app)" in plan
    assert "start other (asked for)" in plan
    node("unit", "start", "other")
    assert node.unit("app")["state"] == "stopped"
    node("unit", "stop", "other")
    node("unit", "start", "app")
    node("unit", "stop", "app")
    node.kill()
    node.start()
    for name in ("app", "db", "other"):
        assert node.unit(name)["state"] == "stopped", "as a person left them"
    node("unit", "start", "app")
    node.reach("work@1", state="ready")
    node.file("a", "[unit]\nafter = ['b']\n[service]\ncommand = 'sleep 1'")
    node.file("b", "[unit]\nafter = ['a']\n[service]\ncommand = 'sleep 1'")
    assert "a" in node("unit", "verify", code=2)


def test_timers_and_paths(node: Node, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    node.file("tick", "[service]\ntype = 'oneshot'\ncommand = 'echo tick'\n[timer]\nevery = '200ms'")
    node.file(
        "night", "[service]\ntype = 'oneshot'\ncommand = 'true'\n[timer]\ncalendar = 'daily'\ntimezone = 'Asia/Tokyo'"
    )
    node.file(
        "mail", f"[service]\ntype = 'oneshot'\ncommand = 'rm -v {inbox}/letter'\n"
        f"[path]\ndirectory_not_empty = '{inbox}'\nmake_directory = true",
    )  # fmt: skip
    node.start()
    node.logged("tick", "tick")
    shown = node("unit", "list", "--timers")
    assert "15:00:00 UTC" in shown
    assert "every 200ms" in shown
    wait_until(inbox.is_dir, "the inbox")
    (inbox / "letter").touch()
    node.logged("mail", "removed")
    node.reach("mail", state="stopped")


def test_sockets_over_kills(node: Node) -> None:
    port, each = free_port(), free_port()
    node.file("talk", f"[service]\ncommand = ['python3', '-c', '''{TALK}''']\n[[socket]]\nlisten = '127.0.0.1:{port}'")
    node.file("cat", f"[service]\ncommand = 'cat'\n[[socket]]\nlisten = '127.0.0.1:{each}'\naccept = true")
    node.start()
    assert node.unit("talk")["state"] == "stopped"
    pid = int(ask(port))
    with socket.create_connection(("127.0.0.1", each), timeout=PATIENCE) as stream:
        stream.sendall(b"one")
        assert stream.recv(10) == b"one"
        node.kill()
        assert int(ask(port)) == pid, "nobody but the appliance is gone"
        stream.sendall(b"two")
        assert stream.recv(10) == b"two"
        node.start()
        assert int(ask(port)) == pid
        stream.sendall(b"three")
        assert stream.recv(10) == b"three", "it was adopted, too"
    node("unit", "stop", "talk")
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    node("unit", "start", "talk")
    assert int(ask(port)) != pid


def test_fences_hold(node: Node, tmp_path: Path) -> None:
    script = (
        "touch /tmp/mine; ls /tmp | wc -l; touch /usr/not 2>&1; cat /proc/sys/net/ipv4/ip_forward > /dev/null;"
        " ulimit -n; umask; grep -c . /proc/net/dev; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status;"
        " chown 1 /tmp/mine 2>&1; exec sleep infinity"
    )
    node.file(
        "box", f'[service]\ncommand = ["sh", "-c", """{script}"""]\numask = "0077"\n'
        "[sandbox]\nno_new_privileges = true\ncapabilities = []\nread_only_root = 'strict'\nprivate_tmp = true\n"
        "private_network = true\nsystem_calls = ['@system-service']\nsystem_call_error = 'EPERM'\n"
        "[limits]\nnofile = 77\noom_score_adjust = 300\n[resources]\ntasks_max = 20",
    )  # fmt: skip
    node.file("open", "[service]\ncommand = 'sleep infinity'")
    node.start()
    node.logged("box", "Operation not permitted")
    lines = [line.partition(" ")[2] for line in node("unit", "logs", "box").splitlines()]
    assert lines[0] == "1"
    assert "Read-only file system" in lines[1]
    assert lines[2:6] == ["77", "0077", "3", "300"]
    assert lines[6].split() == ["NoNewPrivs:", "1"]
    scores = {line.split()[0]: line for line in node("unit", "security").splitlines()}
    assert "UNSAFE" in scores["open"].upper()
    assert "UNSAFE" not in scores["box"].upper()


def test_kill_minus_nine_and_adoption(node: Node) -> None:
    node.file("stay", "[service]\ncommand = ['sh', '-c', 'while :; do date +%s; sleep 0.2; done']")
    node.file("die", "[service]\ncommand = ['sh', '-c', 'echo born; exec sleep infinity']\n[restart]\ndelay = '10ms'")
    node.file("once", "[service]\ntype = 'oneshot'\nremain_after_exit = true\ncommand = 'echo once'")
    node.start()
    before = {name: node.reach(name, state="ready")["pid"] for name in ("stay", "die")}
    node.reach("once", state="exited")
    node.kill()
    os.kill(int(str(before["die"])), signal.SIGKILL)
    assert is_alive(int(str(before["stay"])))
    node.start()
    assert node.reach("stay", state="ready")["pid"] == before["stay"]
    assert node.unit("stay")["restarts"] == 0
    wait_until(lambda: node.unit("die")["pid"] not in (None, before["die"]), "a new life")
    assert node("unit", "logs", "once").count("once") == 1
    os.kill(int(str(before["stay"])), signal.SIGKILL)  # its end is noticed though it is no child of ours
    wait_until(lambda: node.unit("stay")["pid"] not in (None, before["stay"]), "its restart")
    assert "SIGKILL" in str(node.unit("stay")["last_exit"])


def test_operations(node: Node, tmp_path: Path) -> None:
    node.file("web", "[service]\ncommand = 'sleep infinity'")
    node.start()
    assert node("unit", "wait", "web", "--for", "ready").startswith("web: ready")
    said = node("unit", "run", "-p", "sandbox.private_tmp=true", "--", "sh", "-c", "ls /tmp | wc -l; exit 7", code=7)
    assert said.startswith("0\n")
    node("unit", "mask", "--now", "web")
    node.reach("web", state="stopped")
    assert "masked" in node("unit", "start", "web", code=2)
    node("unit", "unmask", "web")
    node("unit", "start", "web")
    editor = tmp_path / "editor"
    edited: Callable[[str], None] = lambda text: (  # noqa: E731
        editor.write_text(f"#!/bin/sh\ncat > $1 <<'E'\n{text}\nE\n"),
        editor.chmod(0o755),
        None,
    )[2]
    os.environ["EDITOR"] = str(editor)
    try:
        edited("[service]\ncomand = 'sleep 1'")
        assert "did you mean" in node("unit", "edit", "web", code=2, text="n\n")
        assert node("unit", "cat", "web") == "[service]\ncommand = 'sleep infinity'\n"
        edited("[service]\ncommand = 'sleep 2000'")
        node("unit", "edit", "web")
    finally:
        del os.environ["EDITOR"]
    assert "sleep 2000" in node("unit", "cat", "web")
    node("unit", "disable", "--now", "web")
    assert node.unit("web")["state"] == "stopped"
    assert node("unit", "graph").startswith("digraph")
    assert node("unit", "top", "--once").startswith("UNIT")  # nothing runs
