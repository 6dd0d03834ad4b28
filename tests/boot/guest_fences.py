"""The only program of a machine whose kernel has all cgroup v2 controllers: do limits hold? Says so in lines."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from appliance.host import bpf
from appliance.host.cgroups import Cgroup, find_cgroup_root
from appliance.host.group_usage import usage
from appliance.host.kernel import device_majors, device_of, interface_of, kernel, node_of
from appliance.host.poller import Poller
from appliance.units.cgroup_programs import CgroupPrograms
from appliance.units.fences import Fences
from appliance.units.unit_file import parse_unit

os.makedirs("/sys/fs/cgroup/init/deep")
with open("/sys/fs/cgroup/init/deep/cgroup.procs", "w") as procs:  # as another init would have started us
    procs.write(str(os.getpid()))
found = find_cgroup_root("/", cast(Poller, None))
assert found is not None
fences = Fences(kernel(), found.controllers, device_of=device_of)
programs = CgroupPrograms(bpf.why_not, node_of, device_majors, interface_of)
PYTHON = sys.executable


def group_of(name: str, resources: str, sandbox: str = "") -> tuple[Cgroup, tuple[str, ...]]:
    assert found is not None
    parsed = parse_unit(
        f"[service]\ncommand = ['true']\n[resources]\nstrict = true\n{resources}\n{sandbox}", f"{name}.toml"
    )
    assert parsed.unit is not None, parsed.findings
    document = parsed.unit.document
    group = found.group(name)
    group.renew()
    group.attach(programs.of(document))
    group.limit(fences.cgroup_values(document))
    group.limit(fences.delegated(document, 1234, 1234))
    return group, fences.spawn_words(document)


def run(group: Cgroup, words: tuple[str, ...], script: str, **more: Any) -> subprocess.Popen[str]:
    assert group.path is not None
    return subprocess.Popen(
        ["/spawn", "--cgroup", group.path, *words, "--", PYTHON, "-I", "-S", "-c", script],
        text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, **more,
    )  # fmt: skip


def read(group: Cgroup, name: str) -> str:
    with open(f"{group.path}/{name}") as file:
        return file.read().strip()


def values() -> str:
    group, _ = group_of(
        "values",
        "memory_max = '64M'\nmemory_high = '32M'\nmemory_low = '1M'\nmemory_min = '1M'\nmemory_swap_max = 0\n"
        "oom_group = true\ncpu_weight = 50\ncpu_quota = '25%'\ncpus = '0'\ntasks_max = 20",
    )
    names = "memory.max memory.high memory.low memory.min memory.oom.group cpu.weight cpu.max cpuset.cpus pids.max"
    return " ".join(read(group, name).replace(" ", "/") for name in names.split())


def memory() -> str:
    """Of two processes one takes too much; with oom_group both are over."""
    group, words = group_of("memory", "memory_max = '24M'\noom_group = true")
    other = run(group, words, "import time; time.sleep(1000)")
    child = run(group, words, "x = bytearray(200 << 20); print('got it')")
    out, _ = child.communicate(timeout=120)
    return f"{out!r} {child.returncode} {other.wait(120)} {group.oom_killed()}"


def tasks() -> str:
    group, words = group_of("tasks", "tasks_max = 8")
    script = (
        "import os, time\nmade = 0\ntry:\n while made < 50:\n  if os.fork() == 0: time.sleep(1000)\n  made += 1\n"
        "except OSError as error: print(made, error.errno, flush=True)\ntime.sleep(1000)"
    )
    child = run(group, words, script)
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    used = usage(group.path, ())
    group.kill()
    child.wait(60)
    return f"{line} {used.tasks} {used.memory_bytes is not None and used.memory_bytes > 1 << 18}"


def cpu() -> str:
    group, words = group_of("cpu", "cpu_quota = '20%'")
    child = run(group, words, "while True: pass")
    time.sleep(1)
    first, begun = usage(group.path, ()).cpu_seconds or 0.0, time.monotonic()
    time.sleep(4)
    share = ((usage(group.path, ()).cpu_seconds or 0.0) - first) / (time.monotonic() - begun)
    group.kill()
    child.wait(60)
    return f"{0.1 < share < 0.3} {share:.2f}"


def delegated() -> str:
    group, words = group_of("delegated", "delegate = true")
    script = f"import os\nos.mkdir('{group.path}/inner')\nprint(open('{group.path}/cgroup.controllers').read().strip())"
    child = run(group, ("--uid", "1234", "--gid", "1234", *words), script)
    out, _ = child.communicate(timeout=60)
    return f"{child.returncode} {' '.join(sorted(out.split()))}"


def protected() -> str:
    group, words = group_of(
        "protected", "", "[sandbox]\nprotect_control_groups = true\nread_only_root = 'strict'\nprivate_tmp = true"
    )
    script = (
        "import os\nfor path in ('/sys/fs/cgroup/x', '/x', '/tmp/x'):\n"
        " try:\n  os.mkdir(path); print('made', path)\n except OSError as error: print(error.errno, path)"
    )
    out, _ = run(group, words, script).communicate(timeout=60)
    return out.replace("\n", " ")


def devices() -> str:
    """Which it may open, and how; with all controllers on, as without them."""
    group, words = group_of("devices", "device_allow = ['/dev/kmsg r', 'char-pts']\ntasks_max = 9")
    script = (
        "import os\nfor path, how in (('/dev/null', 2), ('/dev/kmsg', 0), ('/dev/kmsg', 1), ('/dev/mem', 0)):\n"
        " try:\n  os.open(path, how); print(0)\n except OSError as error: print(error.errno)"
    )
    out, _ = run(group, words, script).communicate(timeout=60)
    return out.replace("\n", " ")


for check in (values, memory, tasks, cpu, delegated, protected, devices):
    try:
        told = cast(Callable[[], str], check)()
    except Exception as error:  # said to whoever watches the serial line
        told = f"{type(error).__name__}: {error}"
    print(f"CHECK {check.__name__}: {told}", flush=True)
print("CHECK controllers:", *sorted(found.controllers()), flush=True)
print("CHECK done", flush=True)
