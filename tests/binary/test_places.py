"""Where the file unpacks, and what it leaves behind: any host, any user, any moment of being killed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.binary import fake
from tests.binary.fake import Host

pytestmark = pytest.mark.binary
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
VERSION = re.compile(r"appliance \d+\.\d+\.\d+\n")


@pytest.fixture
def copy(built: Path) -> Iterator[Path]:
    """The file in a directory of its own, which everybody may enter (pytest closes those it makes to others)."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "host")
        directory.mkdir()
        Path(name).chmod(0o755)
        path = directory / "appliance"
        shutil.copy(built, path)
        yield path


def answers(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True)
    assert VERSION.fullmatch(done.stdout), f"{done.returncode}: {done.stdout}{done.stderr}"
    assert (done.returncode, done.stderr) == (0, "")


def within(mounts: str, *command: str | Path) -> list[str | Path]:
    """The command in a mount namespace of its own, after the shell commands ``mounts``."""
    return ["unshare", "-m", "sh", "-c", f'set -e; {mounts}; exec "$@"', "sh", *command]


def litter(base: Path) -> list[str]:
    return [name for name in os.listdir(base) if name.startswith(".tmp")]


# ---- hosts


def test_in_an_empty_root(copy: Path) -> None:
    assert os.listdir(copy.parent) == ["appliance"]  # no libc, no /proc, no /tmp
    for _ in range(2):
        answers("chroot", copy.parent, "/appliance", "--version")


def test_in_an_empty_root_as_nobody(copy: Path) -> None:
    (copy.parent / "tmp").mkdir()
    (copy.parent / "tmp").chmod(0o1777)
    answers("chroot", "--userspec=65534:65534", copy.parent, "/appliance", "--version")


def test_as_the_first_process_of_an_empty_root(copy: Path) -> None:
    answers("unshare", "--pid", "--fork", "--mount", "chroot", copy.parent, "/appliance", "--version")
    assert (copy.parent / "proc").is_dir()  # it mounted its own


def test_started_without_standard_streams(copy: Path) -> None:
    command = ["sh", "-c", 'exec "$0" --version <&- >&- 2>&-', copy]
    assert subprocess.run(command, env={"APPLIANCE_CACHE": str(copy.parent / "cache")}).returncode == 0


def test_root_with_nowhere_to_write_mounts_its_own_tmpfs(copy: Path) -> None:
    (copy.parent / "mnt").mkdir()
    read_only = f"mount --bind {copy.parent} {copy.parent}; mount -o remount,bind,ro {copy.parent}"
    answers(*within(read_only, "chroot", copy.parent, "/appliance", "--version"))
    assert os.listdir(copy.parent / "mnt") == []  # it was in that namespace only


NO_CACHE = "mount -t tmpfs t /var/cache; mount -t tmpfs t /run"
BAD_TEMPORARY = {
    "noexec": "mount -t tmpfs -o mode=1777,noexec t /tmp; mount -t tmpfs -o mode=1777,noexec t /var/tmp",
    "read-only": "mount -t tmpfs -o ro t /tmp; mount -t tmpfs -o ro t /var/tmp",
    "full": "mount -t tmpfs -o mode=1777,size=8m t /tmp; mount -t tmpfs -o mode=1777,size=8m t /var/tmp",
    "missing": "mount -t tmpfs t /var; mount -t tmpfs -o ro t /tmp",
}


@pytest.mark.parametrize("kind", BAD_TEMPORARY)
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_with_bad_temporary_directories(copy: Path, kind: str, user: str) -> None:
    # The file lies below /tmp: bring it along.
    shared = "mount -t tmpfs -o mode=1777 t /dev/shm; mkdir /mnt/file; mount --bind " + str(copy.parent) + " /mnt/file"
    mounts = f"mount -t tmpfs t /mnt; {shared}; {NO_CACHE}; {BAD_TEMPORARY[kind]}"
    command = [*(NOBODY if user == "nobody" else []), "/mnt/file/appliance", "--version"]
    answers(*within(mounts, *command), HOME="/nonexistent")


def test_where_nothing_can_be_used_it_says_why(copy: Path) -> None:
    mounts = "mount -t tmpfs t /mnt; mkdir /mnt/file; mount --bind " + str(copy.parent) + f" /mnt/file; {NO_CACHE}"
    for place in ("/dev/shm", "/var/tmp", "/tmp"):
        mounts += f"; mount -t tmpfs -o mode=1777,noexec t {place}"
    command = within(mounts, *NOBODY, "/mnt/file/appliance", "--version")
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "appliance: cannot unpack anywhere" in done.stderr
    assert "/dev/shm/appliance-65534: it is mounted noexec" in done.stderr


def test_nobody_keeps_it_at_home(copy: Path) -> None:
    home = copy.parent / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    for _ in range(2):
        answers(*within(NO_CACHE, *NOBODY, copy, "--version"), HOME=str(home))
    assert len([name for name in os.listdir(home / ".cache/appliance") if len(name) == 64]) == 1


def test_a_base_that_others_could_write_is_not_used(copy: Path) -> None:
    loose = copy.parent / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    done = subprocess.run([copy, "--version"], env={"APPLIANCE_CACHE": str(loose), "APPLIANCE_LAUNCHER": "debug"},
                          capture_output=True, text=True)  # fmt: skip
    assert VERSION.fullmatch(done.stdout)
    assert f"cannot use {loose}: it is not a directory that only its owner" in done.stderr
    assert os.listdir(loose) == []


def test_unpacking_ahead(copy: Path) -> None:
    cache = copy.parent / "cache"
    environment = {"APPLIANCE_CACHE": str(cache), "APPLIANCE_LAUNCHER": "unpack"}
    done = subprocess.run([copy, "run"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{cache}/{fake.payload_id(copy)}\n"
    assert (Path(done.stdout.strip()) / "VERSION").exists()


# ---- many at once, killed, grown old


def test_parallel_first_starts_unpack_once(copy: Path) -> None:
    cache = copy.parent / "cache"
    environment = {"APPLIANCE_CACHE": str(cache), "APPLIANCE_LAUNCHER": "debug"}
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen([copy, "--version"], env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(6)
    ]
    said = [process.communicate(timeout=fake.PATIENCE_SECONDS) for process in started]
    assert all(VERSION.fullmatch(out) for out, _ in said)
    assert sum("unpacked into" in errors for _, errors in said) == 1
    assert sorted(os.listdir(cache)) == [".lock", fake.payload_id(copy)]


def test_killed_while_unpacking_it_leaves_no_litter(copy: Path) -> None:
    cache = copy.parent / "cache"
    caught = 0
    while caught < 5:
        shutil.rmtree(cache, ignore_errors=True)
        process = subprocess.Popen([copy, "--version"], env={"APPLIANCE_CACHE": str(cache)}, stdout=subprocess.PIPE)
        fake.until(lambda: cache.exists() and any(name != ".lock" for name in os.listdir(cache)))
        time.sleep(0.02 * caught)  # another moment each time; whichever it is, the next start must mend it
        process.kill()
        process.communicate()
        caught += bool(litter(cache)) or caught > 2
        answers(copy, "--version", APPLIANCE_CACHE=str(cache))
        assert sorted(os.listdir(cache)) == [".lock", fake.payload_id(copy)]


def test_a_damaged_place_is_made_anew(host: Host) -> None:
    file = host.file("1.0")
    host.run(file)
    (host.cache / fake.payload_id(file) / "appliance").unlink()
    assert host.run(file)["VERSION"] == "1.0"


def test_old_versions_are_swept_but_not_those_in_use(host: Host) -> None:
    used = host.file("0.1", "stay")
    host.start(used)
    host.wait_for_starts(1)
    files = [used] + [host.file(f"1.{number}") for number in range(6)]
    for file in files[1:]:
        host.run(file)
    kept = {name for name in os.listdir(host.cache) if name != ".lock"}
    assert kept == {fake.payload_id(file) for file in (used, *files[-3:])}
    os.kill(int(host.starts()[0]["PID"]), signal.SIGKILL)
    fake.until(lambda: not fake.alive(int(host.starts()[0]["PID"])))
    host.run(host.file("2.0"))
    assert fake.payload_id(used) not in os.listdir(host.cache)


@pytest.mark.parametrize("damage", ["cut short", "flipped byte", "no footer"])
def test_a_damaged_file_says_so_and_unpacks_nothing(host: Host, damage: str) -> None:
    file = host.file("1.0")
    data = bytearray(file.read_bytes())
    if damage == "cut short":
        del data[-3000:-200]
    elif damage == "flipped byte":
        data[-2000] ^= 1
    else:
        del data[-10:]
    file.write_bytes(data)
    _, errors = host.start(file).communicate(timeout=fake.PATIENCE_SECONDS)
    assert "damaged" in errors
    assert [name for name in os.listdir(host.cache) if name != ".lock"] == []


def test_the_program_reads_nothing_of_the_host(binary: Path) -> None:
    cache = os.environ["APPLIANCE_CACHE"]
    environment = {"PATH": os.environ["PATH"], "APPLIANCE_CACHE": cache, "PYTHONPATH": "/usr/lib/python3"}
    trace = subprocess.run(
        ["strace", "-f", "-e", "trace=openat,execve", "-E", "LD_PRELOAD=libzstd.so.1", binary, "--version"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert VERSION.fullmatch(trace.stdout)
    after_the_launcher = trace.stderr.split("execve(")[-1]
    tried = {line.split('"')[1] for line in after_the_launcher.splitlines() if "openat(" in line}
    assert any(path.endswith("/lib/libc.so.6") for path in tried)
    foreign = {path for path in tried if not path.startswith((cache, "/proc/", "/dev/"))}
    assert foreign <= {"/etc/localtime"}
