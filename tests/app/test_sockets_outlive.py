"""Sockets of units outlive the whole appliance: a caller is never refused, whatever happens to it or to the unit."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.calling import SERVER, calling, free_port
from app.daemon import Daemon, wait_until
from app.run_cases import Host
from app.test_ends import PATHS


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    it = Host([sys.executable, "-m", "app.driven", "switch"], tmp_path)
    yield it
    for daemon in it.started:
        daemon.clean_up()


def test_no_call_is_refused_over_restarts_kills_and_a_switch(host: Host) -> None:
    port = free_port()
    host.unit(
        "web",
        f"[service]\ncommand = ['{sys.executable}', '-c', '''{SERVER}''']\n[[socket]]\nlisten = '127.0.0.1:{port}'\n",
    )
    daemon = host.start(environ=PATHS).expect_ready()
    pids: list[int] = []

    def up(it: Daemon) -> None:
        pids.append(it.expect_unit("web", "ready")["pid"])

    with calling(port) as caller:
        caller.expect_more()
        up(daemon)
        daemon.call("POST", "/v1/units/web/restart", {})
        caller.expect_more()
        up(daemon)
        begun = len(daemon.lines)
        daemon.send(signal.SIGHUP)  # another version takes over in the same pid
        caller.expect_more()
        daemon.expect(" ready; status page", after=begun)
        up(daemon)
        for _ in range(2):
            daemon.process.kill()
            daemon.wait()
            caller.expect_more()
            daemon = host.start(environ=PATHS).expect_ready()
            up(daemon)
        daemon.call("POST", "/v1/units/web/restart", {})
        caller.expect_more()
        up(daemon)
    assert len(set(pids)) == 3, "restarted twice by us, and by nothing else"
    holder = wait_until(lambda: _holders(daemon), "the holder")
    assert daemon.stop() == 0
    wait_until(lambda: not Path(f"/proc/{holder}/comm").exists(), "the holder to end with an orderly stop")
    with pytest.raises(AssertionError), calling(port) as caller:
        caller.expect_more(1)


def _holders(daemon: Daemon) -> int | None:
    """The pid of the holder of that appliance, by its socket."""
    path = daemon.layout.holder_socket
    inodes = [line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(path)]
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text() == "appliance-hold\n":
                links = [str(link.readlink()) for link in (comm.parent / "fd").iterdir()]
                if any(f"socket:[{inode}]" in links for inode in inodes):
                    return int(comm.parent.name)
        except OSError:
            continue
    return None
