"""What our own OS image switches on, and how its mounts must be; `appliance doctor` looks whether it is so. Pure."""

from __future__ import annotations

# The kernel's own hardening switches (Documentation/admin-guide/sysctl); nothing here breaks a service or a container.
SYSCTL = {
    "kernel.kptr_restrict": "2",
    "kernel.dmesg_restrict": "1",
    "kernel.unprivileged_bpf_disabled": "1",
    "kernel.yama.ptrace_scope": "1",
    "kernel.sysrq": "0",
    "kernel.kexec_load_disabled": "1",
    "kernel.panic": "-1",
    "kernel.panic_on_oops": "1",
    "net.core.bpf_jit_harden": "2",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv6.conf.all.accept_redirects": "0",
    "fs.protected_hardlinks": "1",
    "fs.protected_symlinks": "1",
    "fs.protected_fifos": "2",
    "fs.protected_regular": "2",
    "fs.suid_dumpable": "0",
    "vm.mmap_min_addr": "65536",
}
_ALL = frozenset({"nosuid", "nodev", "noexec"})
_PROGRAMS = frozenset({"nosuid", "nodev"})  # units keep programs there
MOUNTS = {
    "/": _PROGRAMS | {"ro"}, "/proc": _ALL, "/sys": _ALL, "/dev": frozenset({"nosuid", "noexec"}),
    "/dev/shm": _PROGRAMS, "/dev/mqueue": _ALL, "/run": _PROGRAMS, "/tmp": _PROGRAMS, "/var": _PROGRAMS,
    "/etc/appliance": _ALL, "/sys/fs/cgroup": _ALL, "/sys/kernel/security": _ALL,
}  # fmt: skip
