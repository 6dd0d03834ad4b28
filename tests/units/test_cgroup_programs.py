# ruff: noqa: ASYNC110, ASYNC240, E501, PT018 (a test may look at real processes and files)
"""Devices, addresses, interfaces and ports: the programs that the kernel runs for a unit's cgroup, by what they do."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trio

from appliance.api.metrics import Exposition, write_usage
from appliance.errors import UnavailableError
from appliance.host import bpf
from appliance.host.kernel import device_majors, interface_of, node_of
from appliance.schema import Source
from appliance.units.bind_program import bind_program
from appliance.units.cgroup_programs import CgroupPrograms
from appliance.units.device_program import STANDARD
from appliance.units.packet_program import packet_program
from appliance.units.systemd_files import parse_systemd_unit
from units.fence import document
from units.stage import PYTHON, Stage

UNIFIED = next(
    (Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line),
    None,
)
MAY_WRITE = UNIFIED is not None and os.access(UNIFIED / "cgroup.procs", os.W_OK)
WHY_NOT = bpf.why_not() if MAY_WRITE else "no cgroup v2 that we may write to"
with_kernel = pytest.mark.skipif(bool(WHY_NOT), reason=f"this kernel runs no programs for cgroups: {WHY_NOT}")
PROGRAMS = CgroupPrograms(lambda: "", node_of, device_majors, interface_of)


# -- what the kernel makes of it ----------------------------------------------------------------------------------

ATTEMPTS = """
import json, os, socket, sys
def attempt(what):
    try: what()
    except OSError as error: return type(error).__name__ if isinstance(error, TimeoutError) else error.errno
    return 0
def sent(to, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as one: one.sendto(b"hello", to)
def bound(port, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
print(json.dumps([attempt(what) for what in eval(sys.argv[1])]))
"""


@pytest.fixture
def group() -> Iterator[str]:
    assert UNIFIED is not None
    path = UNIFIED / f"appliance-test-{os.getpid()}"
    path.mkdir()
    yield str(path)
    path.rmdir()


def inside(group: str, what: str) -> list[int | str]:
    """What becomes of these attempts in that cgroup: 0, or the number of the error."""
    script = f'echo 0 > {group}/cgroup.procs && exec "$0" -I -c "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, PYTHON, ATTEMPTS, f"[{what}]"], capture_output=True, text=True, timeout=60, check=True
    )
    found: list[int | str] = json.loads(done.stdout)
    return found


def put_on(group: str, text: str) -> None:
    bpf.attach(group, PROGRAMS.of(document(text)))


DEVICES = "lambda: os.open('/dev/null', 2), lambda: os.open('/dev/{0}', 0), lambda: os.open('/dev/{0}', 1)"


@pytest.fixture
def device() -> Iterator[str]:
    """One that nobody counts among the harmless; no terminal, which would become that of who opens it."""
    for name in ("kmsg", "mem", "fuse", "net/tun", "loop-control"):
        if Path(f"/dev/{name}").exists() and stat.S_ISCHR(os.stat(f"/dev/{name}").st_mode):
            try:
                os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK))
            except OSError:
                continue
            yield name
            return
    pytest.skip("no device to try it with")


@with_kernel
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[resources]\ndevice_policy = 'auto'", [0, 0, 0]),
        ("[resources]\ndevice_policy = 'closed'", [0, 1, 1]),
        ("[sandbox]\nprotect_clock = true", [0, 1, 1]),
        ("[resources]\ndevice_allow = ['/dev/DEVICE r']", [0, 0, 1]),
        ("[resources]\ndevice_policy = 'strict'\ndevice_allow = ['/dev/DEVICE']", [1, 0, 0]),
        ("[resources]\ndevice_policy = 'strict'", [1, 1, 1]),
    ],
)
def test_devices(group: str, device: str, text: str, wanted: list[int]) -> None:
    put_on(group, text.replace("DEVICE", device))
    assert inside(group, DEVICES.format(device)) == wanted


@with_kernel
def test_nodes_of_devices(group: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes nodes")
    put_on(group, "[resources]\ndevice_policy = 'closed'\ndevice_allow = ['char-10 m']")
    numbers = ((1, 3), (1, 11), (10, 99))
    tries = (
        f"lambda: os.mknod('{tmp_path}/{major}.{minor}', 0o20600, os.makedev({major}, {minor}))"
        for major, minor in numbers
    )
    assert inside(group, ", ".join(tries)) == [0, 1, 0]


ADDRESSES = (
    "lambda: sent(('127.0.0.1', 9)), lambda: sent(('127.0.0.2', 9)), lambda: sent(('127.200.0.1', 9)), "
    "lambda: sent(('::1', 9), socket.AF_INET6)"
)
has_ipv6 = Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text()


@with_kernel
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ip_address_deny = ['any']", [1, 1, 1, 1]),
        ("ip_address_deny = ['localhost']", [1, 1, 1, 1]),
        ("ip_address_deny = ['10.0.0.0/8', 'fe80::/10', 'multicast', 'link-local']", [0, 0, 0, 0]),
        ("ip_address_deny = ['any']\nip_address_allow = ['127.0.0.2']", [1, 0, 1, 1]),
        ("ip_address_deny = ['127.0.0.2', '::1']\nip_address_allow = ['127.0.0.0/9']", [0, 0, 0, 1]),
        ("ip_address_deny = ['127.0.0.0/9']", [1, 1, 0, 0]),
        ("ip_address_deny = ['::/1']", [0, 0, 0, 1]),
        ("ip_address_deny = ['::/0']\nip_address_allow = ['::1']", [0, 0, 0, 0]),
        ("restrict_network_interfaces = ['lo']", [0, 0, 0, 0]),
        ("restrict_network_interfaces = ['~lo']", [1, 1, 1, 1]),
        ("restrict_network_interfaces = ['no-such-one']", [1, 1, 1, 1]),
        ("restrict_network_interfaces = ['lo']\nip_address_deny = ['127.0.0.2']\nip_accounting = true", [0, 1, 0, 0]),
    ],
)
def test_addresses(group: str, text: str, wanted: list[int]) -> None:
    put_on(group, f"[resources]\n{text}")
    found = inside(group, ADDRESSES)
    assert found[:3] == wanted[:3]
    assert found[3] == wanted[3] or not has_ipv6


@with_kernel
def test_the_longest_lists_that_are_taken_hold(group: str) -> None:
    """1,000 single addresses of IPv6, and the program is still one that the kernel reads."""
    chance = random.Random(6)
    words = [str(ipaddress.IPv6Address(chance.getrandbits(128))) for _ in range(1000)]
    code = packet_program("egress", deny=[*words, "::1"], counts=True)
    bpf.attach(group, [bpf.Program("egress", code, counts=True)])
    assert inside(group, "lambda: sent(('127.0.0.1', 9)), lambda: sent(('::1', 9), socket.AF_INET6)") in (
        [0, 1],
        [0, 99],
    )


@with_kernel
def test_nobody_is_heard_who_is_denied(group: str) -> None:
    put_on(group, "[resources]\nip_address_deny = ['127.0.0.3']\nip_accounting = true")
    script = (
        "import socket\none = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\none.bind(('127.0.0.1', 0))\n"
        "one.settimeout(40)\nprint(one.getsockname()[1], flush=True)\nprint(one.recv(99).decode(), flush=True)\n"
    )
    with subprocess.Popen(
        ["/bin/sh", "-c", f'echo 0 > {group}/cgroup.procs && exec "$0" -I -c "$1"', PYTHON, script],
        stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        port = int(child.stdout.readline())
        for source in ("127.0.0.3", "127.0.0.1"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind((source, 0))
                one.sendto(source.encode(), ("127.0.0.1", port))
        assert child.stdout.readline() == "127.0.0.1\n"
        assert child.wait(60) == 0
    passed = bpf.traffic(group)
    assert passed is not None and (passed.in_packets, passed.in_bytes, passed.out_packets) == (1, 28 + 9, 0)


@with_kernel
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("socket_bind_deny = ['any']", [1, 1, 1]),
        ("socket_bind_deny = ['any']\nsocket_bind_allow = ['ipv4:tcp:PORT-PORT']", [0, 1, 1]),
        ("socket_bind_deny = ['udp', 'ipv6']", [0, 1, 1]),
        ("socket_bind_deny = ['PORT']\nsocket_bind_allow = ['ipv6']", [1, 1, 0]),
        ("socket_bind_deny = ['ipv6:udp:1-65535']", [0, 0, 0]),
        ("socket_bind_allow = ['udp']", [0, 0, 0]),
    ],
)
def test_ports(group: str, text: str, wanted: list[int]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    put_on(group, f"[resources]\n{text.replace('PORT', str(port))}")
    found = inside(
        group,
        f"lambda: bound({port}), lambda: bound({port}, kind=socket.SOCK_DGRAM), lambda: bound({port}, socket.AF_INET6)",
    )
    assert found[:2] == wanted[:2]
    assert found[2] == wanted[2] or not has_ipv6


def test_only_what_never_works_here_leaves_a_unit_without_its_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is short of memory or descriptors for a moment starts no unit without: its start fails."""
    for number, is_said in ((errno.EPERM, True), (errno.ENOSYS, True), (errno.EINVAL, True), (errno.ENOMEM, False)):

        def refuse(command: int, arguments: bytes, number: int = number) -> tuple[int, bytes]:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(bpf, "_call", refuse)
        assert bpf.why_not.__wrapped__().startswith("cannot load a BPF program (device): ") is is_said
        if UNIFIED is not None and not is_said:
            with pytest.raises(UnavailableError, match="Cannot allocate memory"):
                bpf.attach(str(UNIFIED), PROGRAMS.of(document("[resources]\ndevice_policy = 'closed'")))


@with_kernel
def test_what_the_kernel_refuses_is_told_in_its_own_words(group: str) -> None:
    broken = bind_program(["tcp"], ["any"], 4)[:-16]
    with pytest.raises(
        UnavailableError, match=r"cannot load a BPF program \(bind4\): Invalid argument: .*jump out of range"
    ):
        bpf.attach(group, [bpf.Program("bind4", broken)])


def test_what_is_no_cgroup_is_told(tmp_path: Path) -> None:
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with pytest.raises(UnavailableError, match=r"cannot attach a BPF program to "):
        bpf.attach(str(tmp_path), PROGRAMS.of(document("[resources]\ndevice_policy = 'closed'")))


def test_standard_devices_are_those_that_the_host_calls_so() -> None:
    for name, rule in zip(("null", "zero", "full", "random", "urandom", "tty", "ptmx"), STANDARD, strict=False):
        assert node_of(f"/dev/{name}") in ((rule.kind, rule.major, rule.minor), None)
    assert ("char", "pts", 136) in device_majors() or not Path("/dev/pts/ptmx").exists()


# -- units ----------------------------------------------------------------------------------------------------------

UNIT = """
import os, socket, time
def attempt(what):
    try: what()
    except OSError as error: return str(error.errno)
    return "0"
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tries = (lambda: os.open("/dev/null", 2), lambda: os.open("/dev/DEVICE", 0),
         lambda: one.sendto(b"x", ("127.0.0.1", 9)), lambda: one.sendto(b"x", ("127.0.0.2", 9)))
while True:
    print("found", *map(attempt, tries), flush=True)
    time.sleep(FOR)
"""
FENCED = "[resources]\nstrict = true\ndevice_policy = 'closed'\nip_address_deny = ['any']\nip_address_allow = ['127.0.0.2']\nip_accounting = true"


def cgroups_of(units: object) -> str:
    root = units._register.ground.cgroups  # type: ignore[attr-defined]
    if root is None:
        pytest.skip("units have no cgroups here")
    return str(root.directory)


def attached(root: str, name: str) -> Mapping[str, int]:
    return bpf.attached(f"{root}/{name}")


@with_kernel
async def test_a_unit_is_fenced_from_its_first_step_over_restart_and_adoption(stage: Stage, device: str) -> None:
    script = UNIT.replace("DEVICE", device)
    stage.python("web", script.replace("FOR", "0.2"), more=FENCED)
    stage.python("free", script.replace("FOR", "1000"))
    stage.write(
        "early", f"[service]\ntype = 'oneshot'\ncommand = ['{PYTHON}', '-c', '''open('/dev/{device}')''']\n{FENCED}"
    )
    everything = {"device": 1, "ingress": 1, "egress": 1}
    async with stage.running(detach=True) as units:
        root = cgroups_of(units)
        assert await stage.log(units, "web", "found") == "found 0 1 1 0"
        assert await stage.log(units, "free", "found") == "found 0 0 0 0"
        await stage.state(units, "early", "failed", "backoff")
        assert "PermissionError" in await stage.log(units, "early", "not permitted")
        assert attached(root, "web") == everything and attached(root, "free") == {}
        used = units.usages(["web", "free"])
        told = Exposition()
        write_usage(told, used)
        text = told.text().decode()
        assert 'appliance_unit_ip_out_packets_total{unit="web"}' in text
        assert 'appliance_unit_ip_out_packets_total{unit="free"}' not in text
        assert (used["web"].ip_out_packets or 0) > 0 and used["free"].ip_out_packets is None
        pid = units.picture("web").pid
    async with stage.running() as units:  # adopted, and it sends and is refused as before
        await stage.state(units, "web", "ready")
        assert units.picture("web").pid == pid and attached(root, "web") == everything
        before = units.usages(["web"])["web"].ip_out_packets or 0
        with trio.fail_after(40):
            while (units.usages(["web"])["web"].ip_out_packets or 0) <= before:
                await trio.sleep(0.05)
        lines = [line.text async for line in units.logs("web")]
        assert {line for line in lines if line.startswith("found")} == {"found 0 1 1 0"}
        stage.python("web", script.replace("FOR", "1000"), more="[resources]\nip_address_deny = ['127.0.0.2']")
        await units.reload()  # changed: another fence
        await stage.log(units, "web", "found 0 0 0 1")
        assert attached(root, "web") == {"ingress": 1, "egress": 1}
        assert [one for one in units.problems() if "not in force" in one.message] == []
        await units.stop("web")
        assert not Path(f"{root}/web").exists()


@with_kernel
async def test_private_devices_and_a_strict_policy_live_together(stage: Stage) -> None:
    script = "import os\nprint('devices', *sorted(os.listdir('/dev')), os.read(0, 9))"
    service = "type = 'oneshot'\nremain_after_exit = true"
    stage.python("own", script, service=service, more="[sandbox]\nprivate_devices = true")
    stage.python(
        "less", script, service=service, more="[sandbox]\nprivate_devices = true\n[resources]\ndevice_policy = 'strict'"
    )
    async with stage.running() as units:
        root = cgroups_of(units)
        for name in ("own", "less"):
            line = await stage.log(units, name, "devices")
            assert " null " in line and " zero " in line and line.endswith("b''")
            assert attached(root, name) == {"device": 1}


@with_kernel
async def test_programs_are_gone_with_their_units(stage: Stage) -> None:
    """And no descriptor of them stays open with us."""
    stage.shell("web", "exec sleep 1000", more=f"{FENCED}\nsocket_bind_deny = ['any']")
    async with stage.running() as units:
        root = cgroups_of(units)
        await stage.state(units, "web", "ready")
        assert attached(root, "web")["bind6"] == 1
        seen = numbers(f"{root}/web")
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(4):
            await units.restart("web")
            await stage.state(units, "web", "ready")
            units.usages(["web"])
            seen |= numbers(f"{root}/web")
        assert len(seen) == 5 * 5
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
        await units.stop("web")
        with trio.fail_after(40):  # the kernel lets go of them in its own time
            while any(map(is_loaded, seen)):
                await trio.sleep(0.05)


SHIPPED = Path("/lib/systemd/system")


@with_kernel
def test_the_programs_of_all_units_that_debian_ships_here_are_taken(group: str) -> None:
    found = set()
    for file in sorted(SHIPPED.glob("*.service")):
        text = file.read_text()
        if not any(
            word in text for word in ("DevicePolicy=", "DeviceAllow=", "IPAddress", "PrivateDevices=", "ProtectClock=")
        ):
            continue
        parsed = parse_systemd_unit([Source(str(file), text)], host=dict.fromkeys("mHbvugho", "x"))
        assert not [one for one in parsed.findings if ".Device" in one.path or ".IPAddress" in one.path], (
            parsed.findings
        )
        if parsed.unit is not None:
            programs = PROGRAMS.of(parsed.unit.document)
            bpf.attach(group, programs)
            found |= {one.hook for one in programs}
    assert found == {"device", "ingress", "egress"}


@with_kernel
async def test_the_fences_of_debians_hostnamed_hold(stage: Stage) -> None:
    """As it is shipped: IPAddressDeny=any, PrivateDevices=yes; only what runs in it is another program."""
    script = (
        "import os, socket\ndef attempt(what):\n    try: what()\n    except OSError as error: return error.errno\n    return 0\n"
        "one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "print('found', attempt(lambda: one.sendto(b'x', ('127.0.0.1', 9))), attempt(lambda: os.open('/dev/null', 2)), "
        "os.path.exists('/dev/kmsg'), flush=True)"
    )
    (stage.directory / "hostnamed.service").write_text((SHIPPED / "systemd-hostnamed.service").read_text())
    (stage.directory / "hostnamed.service.d").mkdir()
    (stage.directory / "hostnamed.service.d" / "test.conf").write_text(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nWatchdogSec=0\nRestrictAddressFamilies=AF_INET\nReadWritePaths=\n"
        f"ExecStart=\nExecStart=/usr/bin/python3 -I -c {json.dumps(script)}\n"
    )
    async with stage.running() as units:
        root = cgroups_of(units)
        assert await stage.log(units, "hostnamed", "found") == "found 1 0 False"
        assert attached(root, "hostnamed") == {"device": 1, "ingress": 1, "egress": 1}


def numbers(group: str) -> set[int]:
    """Of the programs of that cgroup."""
    fd = os.open(group, os.O_RDONLY)
    try:
        return {number for hook in bpf._TYPES for number in bpf._attached(fd, hook)}
    finally:
        os.close(fd)


def is_loaded(number: int) -> bool:
    try:
        with bpf._opened(bpf._PROGRAM_BY_ID, number):
            return True
    except OSError:
        return False
