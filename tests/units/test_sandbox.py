# ruff: noqa: E501, PT018 (one line for each fence, however long)
"""Every fence holds a real process, and without it the same process gets through: so the fence did it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.errors import UnavailableError
from appliance.host.kernel import kernel
from units.fence import FENCES, NOT_ROOT, document, fenced, python, run
from units.stage import spawn_program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and users need root")

HOST = [(name, os.readlink(f"/proc/self/ns/{name}")) for name in ("net", "ipc", "mnt", "uts")]
TRY = f"""
import ctypes, errno, mmap, os, signal, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what):
    try:
        what()
    except OSError as error:
        print("held", errno.errorcode[error.errno])
    else:
        print("open")
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
HOST = {{name: link for name, link in {HOST!r}}}
def syscall(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "syscall")
"""

# what is set -> what is tried; the process prints "open", or "held" and why
PYTHON = {
    "no_new_privileges = true": (
        "flag = [line.split()[1] for line in open('/proc/self/status') if line.startswith('NoNewPrivs')]\n"
        "print('held' if flag == ['1'] else 'open')",
        "held",
    ),
    "capabilities = ['CAP_CHOWN']": ("attempt(lambda: call('sethostname', os.uname().nodename.encode(), 0) or os.chroot('/'))", "held EPERM"),
    "capabilities = ['~CAP_SYS_CHROOT']": ("attempt(lambda: os.chroot('/'))", "held EPERM"),
    "read_only_root = true": ("attempt(lambda: open('/usr/fence-test', 'x') and os.unlink('/usr/fence-test'))", "held EROFS"),
    "read_only_root = 'full'": ("attempt(lambda: open('/etc/fence-test', 'x') and os.unlink('/etc/fence-test'))", "held EROFS"),
    "read_only_root = 'strict'": ("attempt(lambda: open('/opt/fence-test', 'x') and os.unlink('/opt/fence-test'))", "held EROFS"),
    "protect_home = true": ("attempt(lambda: open('/root/fence-test', 'x') and os.unlink('/root/fence-test'))", "held EROFS"),
    "protect_home = 'read-only'": ("os.listdir('/root'); attempt(lambda: open('/root/fence-test', 'x') and os.unlink('/root/fence-test'))", "held EROFS"),
    "protect_home = 'tmpfs'": ("attempt(lambda: open('/root/fence-test', 'x') and os.unlink('/root/fence-test'))", "held EROFS"),
    "private_tmp = true": ("attempt(lambda: os.stat('/tmp/fence-test-of-another'))", "held ENOENT"),
    "private_devices = true": ("attempt(lambda: os.stat('/dev/loop0' if os.path.exists('/dev/loop0') else '/dev/kmsg'))", "held ENOENT"),
    "private_devices = true # nodes": ("attempt(lambda: (os.mknod('/var/tmp/fence-node', stat.S_IFBLK, os.makedev(7, 0)), os.unlink('/var/tmp/fence-node')))", "held EPERM"),
    "private_devices = true # raw": ("try:\n    call('iopl', 0)\nexcept OSError as error:\n    print('held' if error.errno == errno.EPERM else 'open')\nelse:\n    print('open')", "held"),
    "private_network = true": ("print('open' if [one for one in open('/proc/net/dev') if ':' in one and 'lo:' not in one] or os.readlink('/proc/self/ns/net') == HOST['net'] else 'held')", "held"),
    "private_users = true": ("print('held' if os.stat('/etc/shadow').st_gid == 65534 else 'open')", "held"),
    "private_ipc = true": ("print('open' if os.readlink('/proc/self/ns/ipc') == HOST['ipc'] else 'held')", "held"),
    "private_mounts = true": ("print('open' if os.readlink('/proc/self/ns/mnt') == HOST['mnt'] else 'held')", "held"),
    "protect_hostname = true": ("attempt(lambda: call('sethostname', os.uname().nodename.encode(), len(os.uname().nodename)))", "held EPERM"),
    "protect_kernel_tunables = true": ("attempt(lambda: open('/proc/sys/kernel/randomize_va_space', 'r+'))", "held EROFS"),
    "protect_kernel_tunables = true # sys": ("attempt(lambda: os.open('/sys/kernel/mm/transparent_hugepage/enabled' if os.path.exists('/sys/kernel/mm/transparent_hugepage/enabled') else '/sys/kernel/profiling', os.O_RDWR))", "held EROFS"),
    "protect_kernel_modules = true": ("try:\n    call('delete_module', b'fence-test-no-such-module', 0)\nexcept OSError as error:\n    print('held EPERM' if error.errno == errno.EPERM else 'open')", "held EPERM"),
    "protect_kernel_logs = true": ("attempt(lambda: call('klogctl', 10, None, 0))", "held EPERM"),
    "protect_kernel_logs = true # device": ("attempt(lambda: os.open('/dev/kmsg', os.O_WRONLY))", "held EROFS"),
    "protect_control_groups = true": ("attempt(lambda: (os.mkdir('/sys/fs/cgroup/unified/fence-test' if os.path.isdir('/sys/fs/cgroup/unified') else '/sys/fs/cgroup/fence-test'), os.rmdir('/sys/fs/cgroup/unified/fence-test' if os.path.isdir('/sys/fs/cgroup/unified') else '/sys/fs/cgroup/fence-test')))", "held EROFS"),
    "protect_clock = true": ("import time; attempt(lambda: call('adjtimex', ctypes.create_string_buffer(1024)))", "held EPERM"),
    "protect_proc = 'invisible' # of others": ("os.setgroups([]); os.setgid(65534); os.setuid(65534); attempt(lambda: os.stat('/proc/1'))", "held ENOENT"),
    "proc_subset = 'pid'": ("attempt(lambda: os.stat('/proc/meminfo'))", "held ENOENT"),
    "restrict_namespaces = true": ("attempt(lambda: call('unshare', 0x04000000))", "held EPERM"),
    "restrict_namespaces = true # clone3": ("try:\n    syscall(435, 0, 0)\nexcept OSError as error:\n    print('held' if error.errno == errno.ENOSYS else 'open')", "held"),
    "restrict_namespaces = true # setns": ("it = os.open('/proc/self/ns/uts', os.O_RDONLY); attempt(lambda: call('setns', it, 0))", "held EPERM"),
    "restrict_namespaces = ['~uts', 'net']": ("attempt(lambda: call('unshare', 0x04000000))", "held EPERM"),
    "restrict_namespaces = ['ipc']": ("call('unshare', 0x08000000); attempt(lambda: call('unshare', 0x40000000))", "held EPERM"),
    "restrict_realtime = true": ("os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))", "held EPERM"),
    "restrict_suid_sgid = true": ("open('/var/tmp/fence-suid', 'w'); os.chmod('/var/tmp/fence-suid', 0o755)\ntry:\n    attempt(lambda: os.chmod('/var/tmp/fence-suid', 0o4755))\nfinally:\n    os.unlink('/var/tmp/fence-suid')", "held EPERM"),
    "restrict_suid_sgid = true # open": ("attempt(lambda: (os.open('/var/tmp/fence-suid2', os.O_CREAT | os.O_WRONLY, 0o2755), os.unlink('/var/tmp/fence-suid2')))", "held EPERM"),
    "lock_personality = true": ("attempt(lambda: call('personality', 8))", "held EPERM"),
    "memory_deny_write_execute = true": ("attempt(lambda: mmap.mmap(-1, 4096, prot=7))", "held EPERM"),
    "memory_deny_write_execute = true # later": ("libc.mmap.restype = ctypes.c_void_p; libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]; libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]; it = libc.mmap(None, 4096, 3, 0x22, -1, 0); attempt(lambda: call('mprotect', it, 4096, 5))", "held EPERM"),
    "restrict_address_families = ['AF_UNIX']": ("socket.socket(socket.AF_UNIX).close(); attempt(lambda: socket.socket(socket.AF_INET).close())", "held EAFNOSUPPORT"),
    "restrict_address_families = ['none']": ("attempt(lambda: socket.socket(socket.AF_UNIX).close())", "held EAFNOSUPPORT"),
    "restrict_address_families = ['~AF_NETLINK']": ("socket.socket(socket.AF_INET).close(); attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close())", "held EAFNOSUPPORT"),
    "system_calls = ['~mkdir:ENOSPC', '~mkdirat:ENOSPC']": ("attempt(lambda: (os.mkdir('/var/tmp/fence-dir'), os.rmdir('/var/tmp/fence-dir')))", "held ENOSPC"),
    "system_calls = ['@system-service']\nsystem_call_error = 'EPERM'": ("attempt(lambda: call('swapoff', b'/no/such/swap') if libc.swapoff(b'/no/such') and ctypes.get_errno() == errno.EPERM else None)", "held EPERM"),
    "system_calls = ['@system-service', '~@chown']\nsystem_call_error = 'EACCES'": ("attempt(lambda: os.chown('/var/tmp', -1, -1))", "held EACCES"),
    "readable_paths = ['/var/tmp']": ("attempt(lambda: (open('/var/tmp/fence-r', 'x'), os.unlink('/var/tmp/fence-r')))", "held EROFS"),
    "inaccessible_paths = ['/etc/passwd']": ("print('held' if open('/etc/passwd').read() == '' else 'open')", "held"),
    "inaccessible_paths = ['/var/lib', '-/no/such']": ("print('held' if os.listdir('/var/lib') == [] else 'open')", "held"),
    "no_exec_paths = ['/usr/bin']\nexec_paths = ['/usr/bin/python3.11']": ("attempt(lambda: os.execv('/usr/bin/true', ['true']) if not os.access('/usr/bin/true', os.X_OK) else None)", "held EACCES"),
    "bind_paths = ['/etc:/mnt/fence/etc']\ntemporary_file_system = ['/mnt']": ("print('held' if os.path.exists('/mnt/fence/etc/passwd') else 'open')", "held"),
    "bind_read_only_paths = ['/var/tmp:/mnt']": ("attempt(lambda: (open('/mnt/fence-b', 'x'), os.unlink('/mnt/fence-b')))", "held EROFS"),
    "temporary_file_system = ['/etc:ro,size=1M']": ("print('held' if os.listdir('/etc') == [] else 'open')", "held"),
}  # fmt: skip


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.replace("\n", " "))
def test_a_fence_holds_and_it_is_the_fence(text: str) -> None:
    script, wanted = PYTHON[text]
    other = Path("/tmp/fence-test-of-another")
    other.touch()
    said = python(f"[sandbox]\n{text}", TRY + script)
    assert (said.out.strip(), said.told) == (wanted, ""), said
    free = python("", TRY + script)
    assert free.out.strip() == "open", free
    other.unlink()


def test_the_writable_parts_of_a_strict_root() -> None:
    said = fenced(
        "[sandbox]\nread_only_root = 'strict'\nwritable_paths = ['/var/tmp', '-/no/such']\nprivate_tmp = true\n"
        "no_exec_paths = ['/']\nexec_paths = ['/usr']",
        "touch /tmp/x /var/tmp/fence-w; echo $?; rm /var/tmp/fence-w; touch /var/lib/x 2>&1; echo > /dev/null;"
        "cp /usr/bin/true /tmp/true; /tmp/true; echo $?; ls /tmp",
    )
    out = said.out.splitlines()
    assert out[0] == "0" and "Read-only" in said.out, said
    assert out[-3:] == ["126", "true", "x"], said


def test_a_missing_path_is_told_with_its_step() -> None:
    said = fenced("[sandbox]\nwritable_paths = ['/no/such/place']\nread_only_root = 'strict'", "true")
    assert (said.code, said.told) == (127, "find /no/such/place: No such file or directory\n")
    said = fenced("[sandbox]\nroot_directory = '/no/root'", "true")
    assert said.told == "enter root /no/root: No such file or directory\n"


def test_a_killed_system_call_kills() -> None:
    said = python("[sandbox]\nsystem_calls = ['~@mount']", TRY + "call('umount', b'/no/such')")
    assert said.code == -31, said  # SIGSYS


def test_foreign_architectures_are_killed_and_the_native_one_not(tmp_path: Path) -> None:
    if kernel().machine != "x86_64":
        pytest.skip("int 0x80 is of x86")
    source, program = tmp_path / "old.c", tmp_path / "old"
    source.write_text(
        'int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); return r > 0 ? 7 : 8; }'
    )
    subprocess.run(["gcc", "-o", program, source], check=True)
    if subprocess.run([program]).returncode == 8:
        pytest.skip("this kernel has no 32-bit system calls")
    os.chmod(tmp_path, 0o755)
    assert fenced("", f"exec {program}").code == 7
    assert fenced("[sandbox]\nsystem_call_architectures = ['native']", f"exec {program}").code == -31
    assert fenced("[sandbox]\nsystem_calls = ['~getpid']\nsystem_call_error = 'EIO'", f"exec {program}").code == 8


def test_a_service_behind_all_fences_still_works() -> None:
    said = python(
        """
        [sandbox]
        no_new_privileges = true
        capabilities = ["CAP_NET_BIND_SERVICE"]
        ambient_capabilities = ["CAP_NET_BIND_SERVICE"]
        read_only_root = "strict"
        protect_home = true
        private_tmp = true
        private_devices = true
        private_ipc = true
        protect_hostname = true
        protect_kernel_tunables = true
        protect_kernel_modules = true
        protect_kernel_logs = true
        protect_control_groups = true
        protect_clock = true
        protect_proc = "invisible"
        restrict_namespaces = true
        restrict_realtime = true
        restrict_suid_sgid = true
        lock_personality = true
        memory_deny_write_execute = true
        restrict_address_families = ["AF_INET", "AF_INET6", "AF_UNIX"]
        system_calls = ["@system-service", "~@privileged", "~@resources"]
        system_call_error = "EPERM"
        system_call_architectures = ["native"]
        private_network = true
        """,
        """
        import json, os, socket, ssl, subprocess, tempfile, threading
        server = socket.create_server(("127.0.0.1", 80))
        client = socket.create_connection(("127.0.0.1", 80))
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        thread = threading.Thread(target=lambda: None)
        thread.start(); thread.join()
        assert subprocess.run(["true"]).returncode == 0
        open("/dev/urandom", "rb").read(1); open("/dev/null", "w").write("x")
        print("works as", os.getuid())
        """,
        user=65534,
    )
    assert (said.out, said.told) == ("works as 65534\n", ""), said


def test_seccomp_without_no_new_privileges_as_another_user() -> None:
    said = fenced(
        "[sandbox]\nrestrict_realtime = true",
        "grep -E 'NoNewPrivs|Seccomp:|CapEff|CapPrm' /proc/self/status",
        user=65534,
    )
    fields = dict(line.split() for line in said.out.splitlines())
    assert fields == {"CapPrm:": "0" * 16, "CapEff:": "0" * 16, "NoNewPrivs:": "0", "Seccomp:": "2"}, said


def test_ambient_capabilities_are_kept_over_the_change_of_user() -> None:
    text = "[sandbox]\ncapabilities = ['CAP_NET_RAW', 'CAP_KILL']\nambient_capabilities = ['CAP_NET_RAW']"
    said = fenced(text, "grep -E 'CapEff|CapBnd' /proc/self/status", user=65534)
    assert said.out.split() == ["CapEff:", f"{1 << 13:016x}", "CapBnd:", f"{1 << 13 | 1 << 5:016x}"]


def test_private_users_know_root_and_themselves() -> None:
    said = fenced(
        "[sandbox]\nprivate_users = true", "id -u; stat -c %u /etc/passwd; cat /proc/self/uid_map", user=12345
    )
    assert said.out.split() == ["12345", "0", "0", "0", "1", "12345", "12345", "1"]


def test_private_network_has_loopback_that_is_up() -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 4711)); socket.create_connection(('127.0.0.1', 4711)); print('up')"
    assert python("[sandbox]\nprivate_network = true", script).out == "up\n"


@pytest.fixture
def bare_root(tmp_path: Path) -> Path:
    """A directory with one static program and nothing else."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", root / "bin/busybox"], check=True)
    (root / "bin/sh").symlink_to("busybox")
    for path in (tmp_path, tmp_path.parent):
        os.chmod(path, 0o755)
    return root


def test_root_directory(bare_root: Path) -> None:
    said = run(
        ["/bin/sh", "-c", "busybox ls / /usr/share; cat /dev/null; busybox touch /bin/x; busybox ls /proc/self/fd"],
        FENCES.spawn_words(
            document(
                f"[sandbox]\nroot_directory = '{bare_root}'\nprivate_devices = true\nprotect_proc = 'invisible'\n"
                "bind_read_only_paths = ['/usr/share/doc/bash:/usr/share']\nread_only_root = 'strict'\n"
                "temporary_file_system = ['/run']"
            )
        ),
    )
    assert said.told == "", said
    assert {"bin", "dev", "proc", "usr"} <= set(said.out.split())
    assert "copyright" in said.out and "Read-only file system" in said.err, said


def test_in_a_bare_chroot_that_is_no_mount_point(bare_root: Path) -> None:
    words = FENCES.spawn_words(
        document("[sandbox]\nread_only_root = 'strict'\nprivate_tmp = true\nprotect_home = true")
    )
    subprocess.run(["cp", spawn_program(), bare_root / "spawn"], check=True)
    script = "busybox touch /x; busybox mkdir d; busybox chroot / /bin/busybox echo got out"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "chroot", bare_root, "/spawn", *words, "--", "/bin/sh", "-c", script],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "/x: Read-only file system" in done.stderr, done
    assert "got out" not in done.stdout and "Operation not permitted" in done.stderr, done
    assert str(bare_root) not in Path("/proc/self/mountinfo").read_text()


def test_in_a_bare_chroot_on_a_shared_mount_nothing_appears_outside(bare_root: Path) -> None:
    words = FENCES.spawn_words(
        document("[sandbox]\nread_only_root = 'strict'\nprivate_tmp = true\nprotect_home = true")
    )
    subprocess.run(["cp", spawn_program(), bare_root / "spawn"], check=True)
    (bare_root / "usr").mkdir(exist_ok=True)
    inside = "busybox touch /x; busybox test -d /spawn -o -f /spawn && echo at home"
    script = f"""mount --make-rshared /; before=$(wc -l < /proc/self/mountinfo)
        chroot {bare_root} /spawn "$@" -- /bin/sh -c "{inside}"; echo $(( $(wc -l < /proc/self/mountinfo) - before )) more"""
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", *words], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "at home\n0 more\n", done
    assert "/x: Read-only file system" in done.stderr, done


def as_nobody(text: str, script: str) -> subprocess.CompletedProcess[str]:
    """An appliance that is not root starts it."""
    words = NOT_ROOT.spawn_words(document(text))
    whole = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    program = "/var/tmp/fence-spawn"  # where nobody may read it
    subprocess.run(["install", "-m", "755", spawn_program(), program], check=True)
    try:
        return subprocess.run(
            [*whole, program, *words, "--", "/bin/sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
    finally:
        os.unlink(program)


def test_without_root_landlock_and_filters_hold() -> None:
    if not kernel().landlock_version:
        pytest.skip("this kernel has no Landlock")
    script = "touch /var/tmp/fence-a; mkdir /dev/shm/fence-d && rmdir /dev/shm/fence-d; ls / >/dev/null && unshare -u true; grep NoNew /proc/self/status"
    done = as_nobody(
        "[sandbox]\nread_only_root = 'strict'\nwritable_paths = ['/dev/shm']\nrestrict_namespaces = true", script
    )
    assert "cannot touch '/var/tmp/fence-a': Permission denied" in done.stderr, done
    assert "fence-d" not in done.stderr and "Operation not permitted" in done.stderr, done
    assert done.stdout.split() == ["NoNewPrivs:", "1"]


def test_without_root_but_with_private_users_the_rest_holds() -> None:
    if as_nobody("[sandbox]\nprivate_users = true", "true").returncode:
        pytest.skip("this kernel gives user namespaces only to root")
    text = "[sandbox]\nprivate_users = true\nprivate_tmp = true\nread_only_root = 'strict'\nprivate_network = true\nprivate_devices = true"
    done = as_nobody(
        text, "ls -A /tmp | wc -l; touch /tmp/x && echo wrote; touch /var/lib/x; ls /dev | wc -l; echo > /dev/null"
    )
    assert done.stdout.split()[:2] == ["0", "wrote"] and int(done.stdout.split()[2]) < 20, done
    assert "Read-only" in done.stderr, done


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("private_tmp = true", "cannot make namespaces for .sandbox.: the appliance itself is not root"),
        ("private_network = true", "cannot make namespaces"),
        ("read_only_root = true", "cannot make namespaces"),
        ("inaccessible_paths = ['/etc']", "cannot make namespaces"),
        ("read_only_root = 'strict'\nprotect_home = true", "cannot make namespaces"),
        ("ambient_capabilities = ['CAP_NET_RAW']", "cannot give ambient_capabilities"),
        ("dynamic_user = true", "cannot become a dynamic user"),
    ],
)
def test_without_root_what_cannot_be_done_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnavailableError, match=reason):
        NOT_ROOT.spawn_words(document(f"[sandbox]\n{text}"))
    if "dynamic" not in text:
        NOT_ROOT.spawn_words(document(f"[sandbox]\n{text}\nlenient = true"))


def test_an_old_kernel_is_refused_or_warned_of() -> None:
    none = replace(NOT_ROOT, kernel=replace(NOT_ROOT.kernel, landlock_version=0, machine="riscv64"))
    with pytest.raises(UnavailableError, match="no Landlock"):
        none.spawn_words(document("[sandbox]\nread_only_root = 'strict'"))
    with pytest.raises(UnavailableError, match="cannot filter system calls on a riscv64"):
        none.spawn_words(document("[sandbox]\nrestrict_realtime = true"))
    assert none.spawn_words(document("[sandbox]\nrestrict_realtime = true\nlenient = true")) == ("--lenient", "1")


def test_lenient_goes_on_and_says_so() -> None:
    # Nobody may make a network namespace; the words are those that root would give.
    words = FENCES.spawn_words(document("[sandbox]\nprivate_network = true"))
    lenient = FENCES.spawn_words(document("[sandbox]\nprivate_network = true\nlenient = true"))
    program = spawn_program()
    for given, code, told in (
        (words, 127, "make a namespace: network: Operation not permitted"),
        (lenient, 0, "going on without"),
    ):
        os.chmod(Path(program).parent, 0o755)
        done = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", program, *given, "--", "/bin/true"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code and told in done.stderr, done
