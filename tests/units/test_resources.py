# ruff: noqa: ASYNC240, E501 (a test may look at real processes and files)
"""Limits: what is written where, what is refused, what holds without a cgroup; usage; dynamic users; a fork bomb."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import trio

from appliance.errors import UnavailableError
from appliance.host import controllers
from appliance.host.group_usage import usage
from appliance.host.kernel import Kernel, kernel
from appliance.units.dynamic_users import UIDS, DynamicUsers
from appliance.units.fences import Fences
from appliance.units.unit_file import parse_unit
from units.fence import FENCES, document, fenced
from units.stage import FORKING, Stage, spawn_program

BIG = Kernel(machine="x86_64", is_root=True, landlock_version=0, memory_bytes=1 << 30, tasks_max=20000)
ALL = Fences(BIG, lambda: controllers.CONTROLLERS, device_of=lambda path: "8:16")


def values(text: str) -> dict[str, str]:
    return dict(ALL.cgroup_values(document(f"[resources]\n{text}")))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("memory_max = '512M'", {"memory.max": "536870912"}),
        ("memory_max = '25%'", {"memory.max": str(1 << 28)}),
        ("memory_max = 4096\nmemory_high = 'infinity'", {"memory.max": "4096", "memory.high": "max"}),
        ("memory_min = '1M'\nmemory_low = '2M'", {"memory.min": "1048576", "memory.low": "2097152"}),
        ("memory_swap_max = 0\noom_group = true", {"memory.swap.max": "0", "memory.oom.group": "1"}),
        ("cpu_weight = 50", {"cpu.weight": "50"}),
        ("cpu_weight = 'idle'", {"cpu.idle": "1"}),
        ("cpu_quota = '20%'", {"cpu.max": "20000 100000"}),
        ("cpu_quota = '250%'\ncpu_quota_period = '10ms'", {"cpu.max": "25000 10000"}),
        ("cpu_quota = 'infinity'", {"cpu.max": "max 100000"}),
        ("cpus = '0-2,8'\nmemory_nodes = '0'", {"cpuset.cpus": "0,1,2,8", "cpuset.mems": "0"}),
        ("tasks_max = 64", {"pids.max": "64"}),
        ("tasks_max = '10%'", {"pids.max": "2000"}),
        ("tasks_max = 'infinity'", {"pids.max": "max"}),
        ("io_weight = 200", {"io.weight": "default 200"}),
        (
            "io_max = [{ device = '/var', read_bytes = '1M', write_operations = 9 }]",
            {"io.max": "8:16 rbps=1048576 wbps=max riops=max wiops=9"},
        ),
        ("strict = true", {}),
    ],
)
def test_values_of_the_cgroup(text: str, wanted: dict[str, str]) -> None:
    assert values(text) == wanted


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("resources]\nmemory_max = '12 apples'", 'found "12 apples", expected a size such as "512M", "20%" or "infinity"'),
        ("resources]\nmemory_max = '120%'", 'found "120%", expected at most 100%'),
        ("resources]\ncpu_weight = 0", "found \"0\", expected a number from 1 to 10000"),
        ("resources]\ncpu_quota = '20'", 'found "20", expected a share of one CPU'),
        ("resources]\ntasks_max = -1", 'found "-1", expected a number'),
        ("resources]\ncpus = '1-'", 'found "1-", expected numbers and ranges'),
        ("resources]\ndelegate = ['cpu', 'ram']", 'found "ram", expected controllers'),
        ("limits]\nnofile = '200:100'", "expected a soft limit that is not above the hard one"),
        ("limits]\nnofile = 'many'", 'found "many", expected a number'),
        ("limits]\ncpu_scheduling = 'fifo'\ncpu_scheduling_priority = 0", "expected 1 to 99"),
        ("limits]\nnice = 20", "found the integer 20, expected at least -20 and at most 19"),
        ("sandbox]\ncapabilities = ['CAP_FLY']", 'found "CAP_FLY", which is no capability'),
        ("sandbox]\nsystem_calls = ['@everything']", 'found the group "@everything", expected one of @default'),
        ("sandbox]\nsystem_calls = ['raed']", 'found "raed", which is no system call'),
        ("sandbox]\nsystem_calls = ['read:EWHAT']", 'found the error "EWHAT"'),
        ("sandbox]\nsystem_call_architectures = ['vax']", 'found "vax", expected "native" or some of'),
        ("sandbox]\nrestrict_namespaces = ['web']", 'found "web", which is no namespace'),
        ("sandbox]\nrestrict_address_families = ['INET']", 'found "INET", which is no address family'),
        ("sandbox]\nwritable_paths = ['var']", 'found "var", expected an absolute path'),
        ("sandbox]\nbind_paths = ['/a:b']", 'found "/a:b", expected "/SOURCE"'),
        ("sandbox]\ntemporary_file_system = ['/']", 'found "/", expected "/PATH"'),
        (
            "sandbox]\ncapabilities = ['CAP_KILL']\nambient_capabilities = ['CAP_CHOWN']",
            "found CAP_CHOWN, which capabilities does not keep",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(text: str, finding: str) -> None:
    parsed = parse_unit(f"[service]\ncommand = ['true']\n[{text}\n", "web.toml")
    assert parsed.unit is None
    assert finding in str(parsed.findings[0])


def test_limits_hold() -> None:
    said = fenced(
        "[limits]\nnofile = '100:200'\ncore = 0\nfsize = '4K'\ncpu = '90s'\nstack = 'infinity'\nnproc = 333\nnice = 7\n"
        "oom_score_adjust = 300\ncpu_scheduling = 'batch'\ncpu_affinity = '0'\nio_scheduling = 'idle'",
        "cat /proc/self/limits; nice; cat /proc/self/oom_score_adj; chrt -p $$; taskset -p $$; ionice -p $$;"
        "head -c 8192 /dev/zero > /var/tmp/fence-size; stat -c %s /var/tmp/fence-size; rm /var/tmp/fence-size",
        user=65534,
    )
    limits = {line[:26].strip(): line[26:].split()[:2] for line in said.out.splitlines() if line.startswith("Max ")}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max cpu time"] == ["90", "90"]
    assert limits["Max stack size"] == ["unlimited", "unlimited"]
    assert limits["Max processes"] == ["333", "333"]
    rest = said.out.splitlines()[len(limits) + 1 :]
    assert rest[:2] == ["7", "300"]
    assert "SCHED_BATCH" in rest[2]
    assert rest[4].endswith("mask: 1")
    assert rest[5:] == ["idle", "4096"]


def fake_tree(root: Path, *, here: str = "cpu io memory pids") -> Path:
    """What the kernel shows of a hierarchy of three levels, as plain files."""
    for directory in (root, root / "system", root / "system/appliance"):
        directory.mkdir()
        for name, text in (("cgroup.controllers", here), ("cgroup.subtree_control", ""), ("cgroup.procs", "")):
            (directory / name).write_text(text)
    return root


def test_controllers_are_switched_on_down_the_path(tmp_path: Path) -> None:
    root = fake_tree(tmp_path / "cgroup")
    (root / "cgroup.subtree_control").write_text("memory")
    assert controllers.available(str(root), str(root / "system")) == {"cpu", "io", "memory", "pids"}
    controllers.enable(str(root), str(root / "system/appliance"), frozenset({"memory", "pids"}))
    assert (root / "cgroup.subtree_control").read_text().startswith("+pids")  # memory was on
    assert (root / "system/cgroup.subtree_control").read_text() == "+memory +pids"
    assert (root / "system/appliance/cgroup.subtree_control").read_text() == "+memory +pids"


def test_what_is_missing_is_said_once_and_strict_units_are_refused() -> None:
    plain = document("[resources]\nmemory_max = '1G'\ncpu_weight = 5")
    assert FENCES.cgroup_values(plain) == ()
    strict = document("[resources]\nmemory_max = '1G'\nstrict = true")
    with pytest.raises(UnavailableError, match=r"controller memory \(resources.strict\): this host has no cgroup v2"):
        FENCES.cgroup_values(strict)
    some = Fences(BIG, lambda: frozenset({"cpu"}))
    assert some.cgroup_values(plain) == (("cpu.weight", "5"),)
    units = [
        parse_unit(f"[service]\ncommand = ['true']\n[resources]\n{text}", f"{name}.toml").unit
        for name, text in (("a", "memory_max = 1"), ("b", "tasks_max = 9"), ("c", "strict = true\ncpu_weight = 1"))
    ]
    found = FENCES.findings([unit for unit in units if unit is not None])
    assert len(found) == 1
    assert "no cgroup v2 controller memory, pids for a, b: this host has no cgroup v2 controllers" in str(found[0])


async def test_a_strict_unit_does_not_start_and_the_others_do(stage: Stage) -> None:
    stage.shell("strict", "exec sleep 1000", more="[resources]\ncpus = '0'\nstrict = true\n[restart]\npolicy = 'no'")
    stage.shell("plain", "exec sleep 1000", more="[resources]\ncpus = '0'\ntasks_max = 100")
    async with stage.running() as units:
        await stage.state(units, "plain", "ready")
        if "cpuset" in units.fences.controllers():
            pytest.skip("this host has the controllers: tests/boot shows that they hold")
        await stage.state(units, "strict", "failed")
        assert "cannot hold [resources] without the cgroup v2 controller cpuset" in units.picture("strict").reason
        assert sum("cgroup v2 controller" in one.message for one in units.problems()) == 1


async def test_usage_is_read_when_asked(stage: Stage) -> None:
    stage.python("busy", "x = bytearray(40 << 20)\nimport time, threading\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
                 "t = time.process_time()\nwhile time.process_time() < t + 0.3: pass\nprint('burnt', flush=True)")  # fmt: skip
    stage.write("idle", '[service]\ncommand = ["true"]\ntype = "oneshot"\n')
    async with stage.running() as units:
        await stage.log(units, "busy", "burnt")
        await stage.state(units, "idle", "exited")
        found = units.usages()
        assert set(found) == {"busy"}
        used = found["busy"]
        assert used.cpu_seconds is not None and used.cpu_seconds >= 0.25  # noqa: PT018
        assert used.memory_bytes is not None and used.memory_bytes > 40 << 20  # noqa: PT018
        assert used.tasks == 2
        assert units.usages(["idle"]) == {}


def test_usage_of_a_cgroup_that_has_the_controllers(tmp_path: Path) -> None:
    for name, text in (
        ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"), ("memory.current", "8192\n"), ("pids.current", "3\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2 rios=1\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    used = usage(str(tmp_path), iter(()))
    assert (used.cpu_seconds, used.memory_bytes, used.tasks) == (2.5, 8192, 3)
    assert (used.io_read_bytes, used.io_write_bytes) == (11, 22)


@pytest.mark.skipif(os.geteuid() != 0, reason="a dynamic user takes root")
async def test_a_fork_bomb_leaves_the_others_ready(stage: Stage) -> None:
    # Where there is no pids controller, tasks_max of a dynamic user holds by its RLIMIT_NPROC.
    stage.python(
        "bomb", FORKING, service="stop_timeout = '1s'",
        more="[sandbox]\ndynamic_user = true\n[resources]\ntasks_max = 60\n[restart]\npolicy = 'no'",
    )  # fmt: skip
    stage.shell("web", "echo up; exec sleep 1000")
    async with stage.running() as units:
        await stage.state(units, "web", "ready")
        pid = units.picture("web").pid
        await stage.log(units, "bomb", "lit")
        most = 0
        while most < 60:  # the stage's patience ends it
            await trio.sleep(0.05)
            most = max(most, units.usages(["bomb"])["bomb"].tasks or 0)
        assert most == 60
        await units.restart("web")
        await stage.state(units, "web", "ready")
        assert units.picture("web").pid != pid
        await units.stop("bomb")
        assert units.picture("bomb").pid is None
        uid = units.fences.service_of(units._register.runner("bomb").unit).user
    left = [one for one in os.listdir("/proc") if one.isdigit() and _owner(one) == int(uid or 0)]
    assert not left


def _owner(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


@pytest.mark.skipif(os.geteuid() != 0, reason="a dynamic user takes root")
async def test_a_dynamic_user_owns_its_directories_and_nothing_else(stage: Stage) -> None:
    script = "id -u; touch $STATE_DIRECTORY/mine && echo wrote; touch /var/lib/not 2>&1; touch /tmp/t && echo tmp; exec sleep 1000"
    for name in ("web", "db"):
        stage.shell(name, script, service=f"state_directory = ['{name}']", more="[sandbox]\ndynamic_user = true")
    os.chmod(stage.root, 0o755)
    for above in (stage.root, *stage.root.parents[:3]):
        os.chmod(above, 0o755)
    async with stage.running() as units:
        uids = []
        for name in ("web", "db"):
            await stage.log(units, name, "tmp")
            lines = [line.text async for line in units.logs(name, follow=False)]
            uids.append(int(lines[0]))
            assert lines[1] == "wrote"
            assert "Read-only file system" in lines[2]
            state = Path(stage.layout.below(f"/var/lib/{name}"))
            assert state.stat().st_uid == (state / "mine").stat().st_uid == uids[-1]
        assert uids[0] != uids[1] and all(uid in UIDS for uid in uids)  # noqa: PT018


async def test_a_private_tmp_is_shared_by_the_unit_s_commands_and_gone_after_it(stage: Stage) -> None:
    stage.shell(
        "web", "cat /tmp/made /var/tmp/made; exec sleep 1000", more="[sandbox]\nprivate_tmp = true",
        service="pre_start = [['/bin/sh', '-c', 'echo before > /tmp/made; echo lasts > /var/tmp/made']]",
    )  # fmt: skip
    private = Path(stage.layout.state) / "private-tmp/web"
    async with stage.running() as units:
        await stage.log(units, "web", "lasts")
        assert (private / "tmp/made").read_text() == "before\n"
        await units.stop("web")
        assert not private.exists()
    assert not Path("/tmp/made").exists()


def test_dynamic_users_are_remembered_and_never_shared(tmp_path: Path) -> None:
    path = str(tmp_path / "users")
    taken: frozenset[int] = frozenset()
    users = DynamicUsers(path, lambda name: name == "daemon", lambda: taken)
    first = users.uid_of("web")
    assert first in UIDS
    assert users.uid_of("daemon") is None
    again = DynamicUsers(path, lambda name: False, lambda: frozenset(UIDS))
    assert again.uid_of("web") == first  # also while its processes run
    with pytest.raises(UnavailableError, match="cannot find a dynamic user for db"):
        again.uid_of("db")
    other = DynamicUsers(str(tmp_path / "others"), lambda name: False, lambda: frozenset({first or 0}))
    assert other.uid_of("web") not in (first, None)
    Path(path).write_text("{garbage")
    assert DynamicUsers(path, lambda name: False, frozenset).uid_of("web") == first


def test_the_kernel_is_known() -> None:
    assert kernel().memory_bytes > 1 << 26
    assert re.fullmatch(r"[a-z0-9_]+", kernel().machine)


@pytest.mark.parametrize(("ours", "theirs"), [("-500", "0"), ("300", "300")])
def test_our_shelter_from_the_oom_killer_is_not_the_units(ours: str, theirs: str) -> None:
    """The unit file that `appliance install` writes puts the appliance at -900; its units stay where all others are."""
    script = f"echo {ours} > /proc/self/oom_score_adj || exit 99; exec {spawn_program()} -- /bin/cat /proc/self/oom_score_adj"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 99 or "denied" in done.stderr:
        pytest.skip("we may not lower our own score here")
    assert done.stdout == f"{theirs}\n"
