"""Which files the unit sees: steps for spawn (packaging/launcher/spawn_mounts.c), parents first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from appliance.units.sandbox_section import SandboxSection

_API = ("/dev", "/proc", "/sys")
_BELOW_SYS = (
    "/sys/firmware/efi/efivars", "/sys/fs/bpf", "/sys/fs/cgroup", "/sys/fs/fuse/connections", "/sys/fs/pstore",
    "/sys/fs/selinux", "/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
)  # fmt: skip
_HOMES = ("/home", "/root", "/run/user")
_TUNABLES = (
    "/proc/acpi", "/proc/apm", "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/latency_stats",
    "/proc/mtrr", "/proc/scsi", "/proc/sys", "/proc/sysrq-trigger", "/proc/timer_stats", "/sys",
)  # fmt: skip
_KERNEL_SECRETS = ("/proc/kallsyms", "/proc/kcore")
_RANKS = ("bind", "new", "dev", "set", "keep", "allow", "hide")
_IGNORED_OPTIONS = frozenset({"nosuid", "nodev", "rw", "strictatime", "relatime", "noatime", "exec", "suid", "dev"})


@dataclass(frozen=True)
class _Step:
    kind: str
    path: str
    flags: str = ""
    source: str = ""
    optional: bool = False

    def words(self) -> tuple[str, ...]:
        """As options of spawn."""
        mount = ("--mount", f"{self.kind}:{self.flags}:{'-' * self.optional}{self.path}")
        return ("--source", self.source, *mount) if self.source else mount

    @property
    def order(self) -> tuple[tuple[str, ...], int]:
        """Parents first; on one path, what covers it before what is taken from there."""
        return tuple(filter(None, self.path.split("/"))), _RANKS.index(self.kind)


PRIVATE = (("/tmp", "tmp"), ("/var/tmp", "var-tmp"))  # what is private, and its name below the unit's own directory


def mount_words(sandbox: SandboxSection, own: Sequence[str] = (), private: str = "") -> tuple[str, ...]:
    """Options for spawn; none when it sees what everybody sees. ``own``: its directories, which stay writable.

    ``private``: where its temporary directories lie, shared by all its commands; without one each has them in memory.
    """
    steps = dict.fromkeys((*_of_protections(sandbox, private), *_of_paths(sandbox, own)))
    ordered = sorted(steps, key=lambda one: one.order)
    words = [word for step in ordered for word in step.words()]
    if sandbox.root_directory is not None:
        words += ["--root", sandbox.root_directory]
    if sandbox.private_mounts and not words:
        words = ["--mount", "set::/"]
    return tuple(words)


def _of_protections(sandbox: SandboxSection, private: str) -> Iterator[_Step]:
    if sandbox.read_only_root == "strict":
        yield _Step("set", "/", "r")
        yield from (
            _Step("keep", path, optional=True)
            for path in _API
            if not (path == "/dev" and sandbox.private_devices) and not (path == "/sys" and sandbox.private_network)
        )
    elif sandbox.read_only_root:
        full = ("/etc",) if sandbox.read_only_root == "full" else ()
        yield from (_Step("set", path, "r", optional=True) for path in ("/usr", "/boot", "/efi", *full))
    for path in _HOMES:
        if sandbox.protect_home == "read-only":
            yield _Step("set", path, "r", optional=True)
        elif sandbox.protect_home == "tmpfs":
            yield _Step("new", path, "r", "tmpfs,mode=0755,size=4k", optional=True)
        elif sandbox.protect_home:
            yield _Step("hide", path, optional=True)
    if sandbox.private_tmp:
        for path, name in PRIVATE:
            flags = _exec_flag(sandbox, path)
            if private:
                yield _Step("bind", path, f"{flags}sd", f"{private}/{name}")
            else:
                yield _Step("new", path, flags, "tmpfs,mode=1777", optional=True)
    if sandbox.private_devices:
        yield _Step("dev", "/dev", "x")
    if sandbox.private_network:  # where its network devices are; what is mounted below is the host's as before
        yield _Step("new", "/sys", "x", "sysfs", optional=True)
        yield from (_Step("keep", path, optional=True) for path in _BELOW_SYS)
    if sandbox.private_ipc and not sandbox.private_devices:
        yield _Step("new", "/dev/mqueue", "", "mqueue", optional=True)
    if sandbox.protect_proc != "default" or sandbox.proc_subset != "all":
        hide = f",hidepid={sandbox.protect_proc}" if sandbox.protect_proc != "default" else ""
        yield _Step("new", "/proc", "x", f"proc{hide}{',subset=pid' if sandbox.proc_subset == 'pid' else ''}")
    if sandbox.protect_kernel_tunables:
        yield from (_Step("set", path, "r", optional=True) for path in _TUNABLES)
        yield from (_Step("hide", path, optional=True) for path in _KERNEL_SECRETS)
        if not sandbox.protect_control_groups:
            yield _Step("keep", "/sys/fs/cgroup", optional=True)
    if sandbox.protect_control_groups:
        yield _Step("set", "/sys/fs/cgroup", "r", optional=True)
    if sandbox.protect_kernel_modules:
        yield from (_Step("hide", path, optional=True) for path in ("/lib/modules", "/usr/lib/modules"))
    if sandbox.protect_kernel_logs:
        yield from (_Step("hide", path, optional=True) for path in ("/proc/kmsg", "/dev/kmsg"))
    if sandbox.protect_clock and not sandbox.private_devices:
        yield from (_Step("hide", path, optional=True) for path in ("/dev/rtc", "/dev/rtc0"))


def _of_paths(sandbox: SandboxSection, own: Sequence[str]) -> Iterator[_Step]:
    for path, optional in _plain(sandbox.no_exec_paths):
        yield _Step("set", path, "x", optional=optional)
    for path, optional in _plain(sandbox.exec_paths):
        yield _Step("allow", path, "x", optional=optional)
    for path, optional in _plain(sandbox.readable_paths):
        yield _Step("set", path, "r", optional=optional)
    for path, optional in _plain(sandbox.inaccessible_paths):
        yield _Step("hide", path, optional=optional)
    anew = [entry.partition(":")[0] for entry in sandbox.temporary_file_system]
    for path in own:  # its directories are there, whatever lies over them
        if any(_is_below(path, above) for above in anew):
            yield _Step("bind", path, _exec_flag(sandbox, path), path)
    covered = [path for path, _ in _plain(sandbox.readable_paths)]
    needs_own = sandbox.read_only_root == "strict" or any(_is_below(one, path) for one in own for path in covered)
    for path, optional in (*_plain(sandbox.writable_paths), *((one, True) for one in own if needs_own)):
        if not _is_made_anew(sandbox, path):
            yield _Step("keep", path, _exec_flag(sandbox, path), optional=optional)
    for entries, flags in ((sandbox.bind_paths, ""), (sandbox.bind_read_only_paths, "r")):
        for entry in entries:
            source, target, rest = [*entry.removeprefix("-").split(":", 2), "", ""][:3]
            target = target or source
            alone = "1" if rest == "norbind" else ""
            yield _Step("bind", target, flags + alone + _exec_flag(sandbox, target), source, entry.startswith("-"))
    for entry in sandbox.temporary_file_system:
        path, _, options = entry.partition(":")
        words = [word for word in options.split(",") if word]
        flags = "r" * ("ro" in words) + ("x" if "noexec" in words else _exec_flag(sandbox, path))
        given = [word for word in words if word not in _IGNORED_OPTIONS and word not in ("ro", "noexec")]
        mode = [] if any(word.startswith("mode=") for word in given) else ["mode=0755"]
        yield _Step("new", path, flags, ",".join(("tmpfs", *mode, *given)))


def _is_made_anew(sandbox: SandboxSection, path: str) -> bool:
    """What is new there is writable already, and what was there before shall not come back."""
    return sandbox.private_tmp and path.rstrip("/") in ("/tmp", "/var/tmp")


def _plain(paths: Iterable[str]) -> Iterator[tuple[str, bool]]:
    for path in paths:
        yield path.removeprefix("-").removeprefix("+"), path.startswith("-")


def _exec_flag(sandbox: SandboxSection, path: str) -> str:
    """What is put back must not be executable where nothing shall be."""
    nearest = {
        flag: max((len(one) for one, _ in _plain(paths) if _is_below(path, one)), default=-1)
        for flag, paths in (("x", sandbox.no_exec_paths), ("", sandbox.exec_paths))
    }
    return "x" if nearest["x"] > nearest[""] else ""


def _is_below(path: str, above: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{above.rstrip('/')}/")
