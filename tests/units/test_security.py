# ruff: noqa: PT018
"""Exposure, compared with what systemd-analyze says of the same fences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.units.security import assess
from units.fence import document

PAIRS = {  # the same fences, once in our words and once in systemd's
    "bare": ("", ""),
    "some": (
        "[sandbox]\nno_new_privileges = true\nprivate_tmp = true\nread_only_root = 'full'\nprotect_home = true",
        "NoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=full\nProtectHome=yes",
    ),
    "much": (
        "[sandbox]\nno_new_privileges = true\nprivate_tmp = true\nread_only_root = 'strict'\nprotect_home = true\n"
        "private_devices = true\nprotect_kernel_modules = true\nprotect_kernel_tunables = true\n"
        "protect_kernel_logs = true\nprotect_control_groups = true\nprotect_clock = true\nprotect_hostname = true\n"
        "restrict_namespaces = true\nrestrict_realtime = true\nrestrict_suid_sgid = true\nlock_personality = true\n"
        "memory_deny_write_execute = true\nrestrict_address_families = ['AF_UNIX']\ncapabilities = []\n"
        "system_calls = ['@system-service', '~@privileged']\nsystem_call_architectures = ['native']\n"
        "protect_proc = 'invisible'\nprivate_network = true\nprivate_users = true\n",
        "NoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=strict\nProtectHome=yes\nPrivateDevices=yes\n"
        "ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectKernelLogs=yes\nProtectControlGroups=yes\n"
        "ProtectClock=yes\nProtectHostname=yes\nRestrictNamespaces=yes\nRestrictRealtime=yes\nRestrictSUIDSGID=yes\n"
        "LockPersonality=yes\nMemoryDenyWriteExecute=yes\nRestrictAddressFamilies=AF_UNIX\nCapabilityBoundingSet=\n"
        "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\nSystemCallArchitectures=native\n"
        "ProtectProc=invisible\nPrivateNetwork=yes\nPrivateUsers=yes\n",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_score_is_near_that_of_systemd(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze to compare with")
    ours, theirs = PAIRS[name]
    file = tmp_path / "x.service"
    file.write_text(f"[Service]\nExecStart=/bin/true\n{theirs}\n")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", file], capture_output=True, text=True
    )
    said = next(line for line in done.stdout.splitlines() if "Overall exposure" in line)
    wanted = float(said.split(":")[1].split()[0])
    # They count besides: keyrings, and what System V IPC leaves.
    assert abs(assess("x", document(ours)).exposure - wanted) <= 0.6, said


def test_words_and_rows() -> None:
    bare = assess("web", document(""))
    assert (bare.word, bare.exposure > 9) == ("unsafe", True)
    assert bare.rows[0].setting == "private_network" and bare.rows[0].mark == "bad"
    best = assess("web", document(PAIRS["much"][0]))
    assert best.exposure < 3 and best.word in ("ok", "safe")
    row = next(row for row in best.rows if row.setting == "system_calls ~@resources")
    assert row.state.startswith("may call ")


@pytest.mark.parametrize("more", [(), ("-o", "json")])
def test_the_command(tmp_path: Path, more: tuple[str, ...]) -> None:
    units = tmp_path / "etc/appliance/units"
    units.mkdir(parents=True)
    for name in ("web", "db"):
        (units / f"{name}.toml").write_text("[service]\ncommand = ['/bin/true']\n[sandbox]\nprivate_tmp = true\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(*names: str) -> str:
        words = [sys.executable, "-m", "appliance", "--root", str(tmp_path), *more, "unit", "security", *names]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    if more:
        one = json.loads(run("web"))
        assert one["word"] == "unsafe" and {row["setting"] for row in one["rows"]} >= {"private_tmp", "umask"}
        assert [each["unit"] for each in json.loads(run())] == ["db", "web"]
    else:
        assert "overall exposure of web: 9." in run("web")
        assert "db" in run() and "unsafe" in run()
