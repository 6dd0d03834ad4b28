"""How this host's init is told to keep us up: texts and commands, decided in plain functions."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SYSTEMD_UNIT = """\
# Written by `appliance install`; `appliance uninstall` removes it.
[Unit]
Description=Appliance node
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=1
# We stop our units ourselves, in order; and when we die they live on, for the next of us to adopt.
KillMode=process
Delegate=yes
TimeoutStartSec=2min
TimeoutStopSec=5min
OOMScoreAdjust=-900
LimitNOFILE=1024:524288
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""
OPENRC_SCRIPT = """\
#!/sbin/openrc-run
# Written by `appliance install`; `appliance uninstall` removes it.
description="Appliance node"
supervisor=supervise-daemon
command={program}
command_args="{arguments}"
respawn_delay=1
respawn_max=0
retry="TERM/300"
extra_started_commands="reload"
depend() {{ after net; }}
reload() {{ supervise-daemon "$RC_SVCNAME" --signal HUP; }}
"""
INITTAB = {
    "sysv": ("ap:2345:respawn:{command}", "telinit q"),
    "busybox": ("::respawn:{command}", "kill -HUP 1"),
}


@dataclass(frozen=True)
class Plan:
    """What to write, call, remove and call then, in this order; or what only a person can do."""

    init: str
    files: tuple[tuple[str, str, int], ...] = ()  # path, text, mode
    commands: tuple[tuple[str, ...], ...] = ()
    remove: tuple[str, ...] = ()
    commands_after: tuple[tuple[str, ...], ...] = ()
    by_hand: str = ""


def init_of_this_host() -> str:
    """By its name: systemd, openrc, busybox, sysv; or none that we know."""
    if os.path.isdir("/run/systemd/system"):
        return "systemd"
    if os.path.exists("/run/openrc/softlevel") and os.path.exists("/sbin/openrc-run"):
        return "openrc"
    if os.path.realpath("/sbin/init").endswith("busybox"):
        return "busybox"
    return "sysv" if os.path.exists("/etc/inittab") else "none"


def own_command() -> list[str]:
    """What starts this program again: the file that the user dropped, or Python when run from source."""
    if getattr(sys, "frozen", False):
        from appliance.host import bundle

        return [os.path.abspath(bundle.take().origin)]
    return [sys.executable, "-m", "appliance"]


def is_at_work(init: str) -> bool:
    """Whether that init runs this host now; in an image in the making, or a chroot, systemd is only told of its next
    boot.
    """
    return init != "systemd" or os.path.isdir("/run/systemd/system")


def plan_install(init: str, command: Sequence[str], name: str, *, at_work: bool = True) -> Plan:
    """``command`` is the whole line, from the program to its last option."""
    line = shlex.join(command)
    if init == "systemd":
        path = f"/etc/systemd/system/{name}.service"
        text = SYSTEMD_UNIT.format(command=" ".join(map(_systemd_word, command)))
        return Plan(
            init,
            files=((path, text, 0o644),),
            commands=(("systemctl", "daemon-reload"), ("systemctl", "enable", "--now", f"{name}.service"))
            if at_work
            else (("systemctl", "enable", f"{name}.service"),),
        )
    if init == "openrc":
        program, *arguments = command
        shown = shlex.join(arguments).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        text = OPENRC_SCRIPT.format(program=shlex.quote(program), arguments=shown)
        return Plan(
            init,
            files=((f"/etc/init.d/{name}", text, 0o755),),
            commands=(("rc-update", "add", name, "default"), ("rc-service", name, "start")),
        )
    if init in INITTAB:
        text, after = INITTAB[init]
        return Plan(init, by_hand=f"add this line to /etc/inittab, then `{after}`:\n{text.format(command=line)}")
    return Plan(init, by_hand=f"no init that we know runs here; let yours keep this up, as root:\n{line}")


def plan_uninstall(init: str, name: str, *, at_work: bool = True) -> Plan:
    """Stops the appliance (which stops its units) and forgets it; settings and state stay."""
    if init == "systemd":
        return Plan(
            init,
            remove=(f"/etc/systemd/system/{name}.service",),
            commands=(("systemctl", "disable", *(("--now",) if at_work else ()), f"{name}.service"),),
            commands_after=(("systemctl", "daemon-reload"),) if at_work else (),
        )
    if init == "openrc":
        return Plan(
            init,
            remove=(f"/etc/init.d/{name}",),
            commands=(("rc-service", name, "stop"), ("rc-update", "del", name, "default")),
        )
    return Plan(init, by_hand="remove our line from /etc/inittab, or from whatever starts `appliance run` here")


def _systemd_word(word: str) -> str:
    """systemd.service(5), "Command lines": specifiers and variables are doubled, the rest is quoted when needed."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{word}"' if not word or any(one in word for one in " \t'\"\\;") else word
