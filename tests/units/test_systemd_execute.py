# ruff: noqa: E501 (a table, one line a case)
"""What systemd's own tests of execution (its test/test-execute) hold directives to, in our words, on real processes.

Each case is a .service file in the units directory; its script is the judge. All run in one daemon, at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from appliance.units import read_unit_file
from units.stage import Stage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="most of these need root")

AT_REST = ("stopped", "exited", "failed", "backoff")

# name: (directives, script; FAILS before it says so)
CASES: dict[str, tuple[str, str]] = {
    "environment": ('Environment=\'VAR1=word1 word2\' VAR2=word3 "VAR3=$word 5 6"', '[ "$VAR1" = "word1 word2" ] && [ "$VAR2" = word3 ] && [ "$VAR3" = "\\$word 5 6" ]'),
    "environment-empty": ("Environment=VAR1=a VAR2=b\nEnvironment=", '[ -z "$VAR1$VAR2" ]'),
    "environment-multiple": ('Environment="VAR1=word1 word2"\nEnvironment=VAR2=word3 "VAR1=foobar"', '[ "$VAR1" = foobar ] && [ "$VAR2" = word3 ]'),
    "environmentfile": ("EnvironmentFile=@ROOT@/env", '[ "$VAR1" = "word1 word2" ] && [ "$VAR2" = word3 ] && [ "$VAR3" = "\\$word 5 6" ] && [ "${VAR4-unset}" = unset ]'),
    "environmentfile-missing": ("EnvironmentFile=-/nowhere/env", "true"),
    "environmentfile-needed": ("EnvironmentFile=/nowhere/env", "FAILS true"),
    "environmentfile-pattern": ("EnvironmentFile=@ROOT@/env.d/*.conf", '[ "$FIRST$SECOND" = onetwo ]'),
    "unsetenvironment": ("Environment=FOO=bar QUUX=waldo VAR3=value3 VAR4=value4\nUnsetEnvironment=QUUX=waldo VAR3=somethingelse VAR4", '[ "$FOO" = bar ] && [ "${QUUX-X}" = X ] && [ "$VAR3" = value3 ] && [ "${VAR4-X}" = X ]'),
    "passenvironment-absent": ("PassEnvironment=NOBODY_HAS_SET_THIS", '[ "${NOBODY_HAS_SET_THIS-unset}" = unset ]'),
    "nothing-of-ours": ("", '[ "${UNITS_TEST_MARK-unset}" = unset ]'),
    "variables": ("User=daemon", '[ "$USER" = daemon ] && [ "$LOGNAME" = daemon ] && [ "$HOME" = /usr/sbin ] && [ -n "$SHELL" ] && [ ${#INVOCATION_ID} = 32 ]'),
    "execsearchpath": ("ExecSearchPath=@ROOT@/programs:/usr/bin:/bin\nExecStart=only-there", "true"),
    "user": ("User=nobody", "[ $(id -nu) = nobody ] && [ $(id -u) = 65534 ]"),
    "user-number": ("User=1", "[ $(id -nu) = daemon ]"),
    "group": ("Group=daemon", "[ $(id -gn) = daemon ] && [ $(id -u) = 0 ]"),
    "group-nogroup": ("Group=nogroup", "[ $(id -gn) = nogroup ]"),
    "supplementarygroups": ("SupplementaryGroups=1", "id -G | grep -qw 1"),
    "supplementarygroups-single-group": ("Group=1\nSupplementaryGroups=1", "[ $(id -g) = 1 ] && [ \"$(id -G)\" = 1 ]"),
    "supplementarygroups-single-group-user": ("User=1\nGroup=1\nSupplementaryGroups=1", "[ $(id -g) = 1 ] && [ \"$(id -G)\" = 1 ] && [ $(id -u) = 1 ]"),
    "supplementarygroups-multiple": ("SupplementaryGroups=1 2 3", "for g in 1 2 3; do id -G | grep -qw $g || exit 1; done"),
    "supplementarygroups-multiple-default-group-user": ("User=1\nSupplementaryGroups=1 2 3", "[ $(id -g) = 1 ] && id -G | grep -qw 2 && id -G | grep -qw 3"),
    "umask-default": ("", "touch @ROOT@/u1 && [ $(stat -c %a @ROOT@/u1) = 644 ]"),
    "umask-0177": ("UMask=0177", "touch @ROOT@/u2 && [ $(stat -c %a @ROOT@/u2) = 600 ]"),
    "umask-namespace": ("UMask=0177\nPrivateTmp=yes", "touch /tmp/u3 && [ $(stat -c %a /tmp/u3) = 600 ] && [ $(stat -c %a /tmp) = 1777 ]"),
    "workingdirectory": ("WorkingDirectory=/usr/share", "[ $PWD = /usr/share ]"),
    "workingdirectory-optional": ("WorkingDirectory=-/nowhere", "[ $PWD = / ]"),
    "workingdirectory-missing": ("WorkingDirectory=/nowhere", "FAILS true"),
    "workingdirectory-home": ("User=daemon\nWorkingDirectory=~", "[ $PWD = /usr/sbin ]"),
    "oomscoreadjust-positive": ("OOMScoreAdjust=100", "[ $(cat /proc/self/oom_score_adj) = 100 ]"),
    "nice": ("Nice=5", "[ $(nice) = 5 ]"),
    "ioschedulingclass-idle": ("IOSchedulingClass=idle", "[ \"$(ionice)\" = idle ]"),
    "ioschedulingclass-best-effort": ("IOSchedulingClass=best-effort\nIOSchedulingPriority=3", "ionice | grep -q \"best-effort: prio 3\""),
    "cpuaffinity1": ("CPUAffinity=0", "grep -q \"^Cpus_allowed_list:.0$\" /proc/self/status"),
    "cpuaffinity2": ("CPUAffinity=0\nCPUAffinity=", "[ $(nproc) = @CPUS@ ]"),
    "limitnofile": ("LimitNOFILE=1500:1600", "[ $(ulimit -Sn) = 1500 ] && [ $(ulimit -Hn) = 1600 ]"),
    "personality-x86-64": ("Personality=x86-64", "[ $(uname -m) = x86_64 ]"),
    "ignoresigpipe-default": ("", "grep SigIgn /proc/self/status | grep -q \"1[0-9a-f]\\{3\\}$\""),
    "ignoresigpipe-no": ("IgnoreSIGPIPE=no", "grep -q \"SigIgn:.0000000000000000\" /proc/self/status"),
    "capabilityboundingset-simple": ("CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_KILL", "grep -q \"CapBnd:.0000000000000029\" /proc/self/status"),
    "capabilityboundingset-merge": ("CapabilityBoundingSet=CAP_FOWNER\nCapabilityBoundingSet=CAP_KILL CAP_CHOWN", "grep -q \"CapBnd:.0000000000000029\" /proc/self/status"),
    "capabilityboundingset-reset": ("CapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=", "grep -q \"CapBnd:.0000000000000000\" /proc/self/status"),
    "capabilityboundingset-invert": ("CapabilityBoundingSet=~CAP_CHOWN", "! grep CapBnd /proc/self/status | grep -q \"[13579bdf]$\""),
    "ambientcapabilities": ("User=nobody\nAmbientCapabilities=CAP_CHOWN CAP_NET_RAW", "grep -q \"CapAmb:.0000000000002001\" /proc/self/status && grep -q \"CapEff:.0000000000002001\" /proc/self/status"),
    "ambientcapabilities-merge": ("User=nobody\nAmbientCapabilities=CAP_CHOWN\nAmbientCapabilities=CAP_NET_RAW", "grep -q \"CapAmb:.0000000000002001\" /proc/self/status"),
    "privatedevices-yes": ("PrivateDevices=yes", "[ ! -e /dev/mem ] && [ -c /dev/null ] && [ ! -e /dev/kmsg ]"),
    "privatedevices-no": ("PrivateDevices=no", "[ -c /dev/null ]"),
    "privatedevices-capability": ("PrivateDevices=yes", "[ $(( 0x$(sed -n \"s/^CapBnd:.//p\" /proc/self/status) >> 27 & 1 )) = 0 ] && [ $(( 0x$(sed -n \"s/^CapBnd:.//p\" /proc/self/status) >> 17 & 1 )) = 0 ]"),
    "privatedevices-with-group": ("PrivateDevices=yes\nUser=nobody\nGroup=daemon", "[ -w /dev/null ] && [ $(id -gn) = daemon ]"),
    "protectkernelmodules": ("ProtectKernelModules=yes", "[ ! -e /usr/lib/modules ] || ! ls /usr/lib/modules"),
    "privatetmp-yes": ("PrivateTmp=yes", "[ ! -e @ROOT@ ] && touch /tmp/x /var/tmp/y"),
    "privatetmp-no": ("PrivateTmp=no", "[ -e @ROOT@ ]"),
    "privatetmp-disabled-by-prefix": ("PrivateTmp=yes\nExecStart=+/bin/sh -c '[ -e @ROOT@ ]'", "true"),
    "privatenetwork-yes": ("PrivateNetwork=yes", "[ \"$(ls /proc/self/net/dev_snmp6 2>/dev/null | tr -d \"\\n\")\" = lo ] || [ $(grep -c : /proc/net/dev) = 1 ]"),
    "privatenetwork-sysfs": ("PrivateNetwork=yes", "[ \"$(ls /sys/class/net)\" = lo ]"),
    "inaccessiblepaths": ("InaccessiblePaths=/usr/share", "! ls /usr/share/doc"),
    "inaccessiblepaths-sys": ("InaccessiblePaths=/sys", "[ ! -e /sys/kernel ]"),
    "inaccessiblepaths-proc": ("InaccessiblePaths=-/proc/kcore", "[ ! -r /proc/kcore ] || ! head -c 1 /proc/kcore"),
    "readonlypaths-simple": ("ReadOnlyPaths=/usr /etc /sys", "! touch /usr/x /etc/x 2>/dev/null && [ ! -w /usr ]"),
    "readonlypaths-optional": ("ReadOnlyPaths=-/nowhere /etc", "! touch /etc/x"),
    "readonlypaths-with-bindpaths": ("ReadOnlyPaths=/etc\nBindPaths=@ROOT@:/etc/ssl", "touch /etc/ssl/bound && ! touch /etc/x"),
    "readwritepaths": ("ProtectSystem=strict\nReadWritePaths=@ROOT@", "touch @ROOT@/rw && ! touch /var/x"),
    "bindpaths": ("BindPaths=@ROOT@:/mnt @ROOT@:-/nowhere\nBindReadOnlyPaths=/usr/share:/srv", "[ -e /mnt/env ] && touch /mnt/t && [ -d /srv/doc ] && ! touch /srv/t"),
    "temporaryfilesystem": ("TemporaryFileSystem=/var", "[ -z \"$(ls /var)\" ] && touch /var/x"),
    "temporaryfilesystem-options": ("TemporaryFileSystem=/var:mode=0700 ", "[ $(stat -c %a /var) = 700 ]"),
    "temporaryfilesystem-ro": ("TemporaryFileSystem=/var:ro", "! touch /var/x"),
    "temporaryfilesystem-usr": ("TemporaryFileSystem=/opt\nBindReadOnlyPaths=/usr/bin:/opt/bin", "[ -x /opt/bin/env ]"),
    "noexecpaths": ("NoExecPaths=/\nExecPaths=/bin/sh /usr/bin /bin /lib /lib64 /usr/lib", "! @ROOT@/programs/only-there"),
    "protecthome": ("ProtectHome=yes", "! ls /root/. >/dev/null 2>&1 || [ -z \"$(ls -A /root)\" ]"),
    "protecthome-tmpfs-vs-protectsystem-strict": ("ProtectHome=tmpfs\nProtectSystem=strict", "[ -d /root ] && ! touch /root/x"),
    "protectsystem-yes": ("ProtectSystem=yes", "! touch /usr/x && touch /etc/.units-test && rm /etc/.units-test"),
    "protectsystem-full": ("ProtectSystem=full", "! touch /etc/x"),
    "protectkerneltunables": ("ProtectKernelTunables=yes", "! sh -c \"echo 1 > /proc/sys/kernel/panic_on_oops\""),
    "protectcontrolgroups": ("ProtectControlGroups=yes", "! mkdir /sys/fs/cgroup/units-test-x /sys/fs/cgroup/unified/units-test-x"),
    "protecthostname": ("ProtectHostname=yes", "! hostname units-test-x"),
    "privateusers": ("PrivateUsers=yes", "[ $(id -u) = 0 ] && [ $(wc -l < /proc/self/uid_map) -ge 1 ] && ! grep -q 4294967295 /proc/self/uid_map"),
    "restrictnamespaces-no": ("RestrictNamespaces=no", "unshare -m true"),
    "restrictnamespaces-yes": ("RestrictNamespaces=yes", "! unshare -m true && ! unshare -u true"),
    "restrictnamespaces-mnt": ("RestrictNamespaces=mnt", "unshare -m true && ! unshare -u true"),
    "restrictnamespaces-mnt-deny-list": ("RestrictNamespaces=~mnt", "! unshare -m true && unshare -u true"),
    "restrictnamespaces-merge-or": ("RestrictNamespaces=mnt\nRestrictNamespaces=uts", "unshare -m true && unshare -u true && ! unshare -n true"),
    "restrictnamespaces-merge-and": ("RestrictNamespaces=mnt uts\nRestrictNamespaces=~uts", "unshare -m true && ! unshare -u true"),
    "systemcallfilter-not-failing": ("SystemCallFilter=@system-service", "true"),
    "systemcallfilter-not-failing-deny": ("SystemCallFilter=~@mount ioperm", "true"),
    "systemcallfilter-failing": ("SystemCallFilter=~mkdir mkdirat", "FAILS mkdir @ROOT@/scf"),
    "systemcallfilter-with-errno-name": ("SystemCallFilter=~mkdir:EILSEQ mkdirat:EILSEQ", "mkdir @ROOT@/scf2 2>&1 | grep -q \"nvalid or incomplete\""),
    "systemcallfilter-with-errno-number": ("SystemCallFilter=~mkdir:84 mkdirat:84", "mkdir @ROOT@/scf3 2>&1 | grep -q \"nvalid or incomplete\""),
    "systemcallfilter-error-number-name": ("SystemCallFilter=~mkdir mkdirat\nSystemCallErrorNumber=EACCES", "mkdir @ROOT@/scf4 2>&1 | grep -q denied"),
    "systemcallfilter-error-number": ("SystemCallFilter=~mkdir mkdirat\nSystemCallErrorNumber=13", "mkdir @ROOT@/scf5 2>&1 | grep -q denied"),
    "systemcallfilter-override-error-action": ("SystemCallFilter=~mkdir:kill mkdirat:kill\nSystemCallErrorNumber=EACCES", "! mkdir @ROOT@/scf6 2>&1 | grep -q denied"),
    "systemcallfilter-nonewprivileges": ("User=nobody\nSystemCallFilter=~ioperm", "grep -q \"NoNewPrivs:.0\" /proc/self/status"),
    "systemcallfilter-nonewprivileges-root": ("SystemCallFilter=~ioperm", "grep -q \"NoNewPrivs:.0\" /proc/self/status"),
    "restrictaddressfamilies": ("RestrictAddressFamilies=AF_UNIX", "! python3 -c \"import socket; socket.socket(socket.AF_INET)\" && python3 -c \"import socket; socket.socket(socket.AF_UNIX)\""),
    "memorydenywriteexecute": ("MemoryDenyWriteExecute=yes", "! python3 -c \"import mmap; mmap.mmap(-1, 4096, prot=7)\""),
    "lockpersonality": ("LockPersonality=yes", "! setarch i686 true"),
    "restrictsuidsgid": ("RestrictSUIDSGID=yes", "touch @ROOT@/suid && ! chmod u+s @ROOT@/suid"),
    "runtimedirectory": ("RuntimeDirectory=units-x-run", "[ -d @ROOT@/run/units-x-run ] && [ \"$RUNTIME_DIRECTORY\" = @ROOT@/run/units-x-run ] && touch @ROOT@/run/units-x-run/a"),
    "runtimedirectory-mode": ("RuntimeDirectory=units-x-mode\nRuntimeDirectoryMode=0750", "[ $(stat -c %a @ROOT@/run/units-x-mode) = 750 ]"),
    "runtimedirectory-owner": ("RuntimeDirectory=units-x-own\nGroup=daemon\nUser=nobody", "[ $(stat -c %U:%G @ROOT@/run/units-x-own) = nobody:daemon ]"),
    "runtimedirectory-two": ("RuntimeDirectory=units-x-one units-x-two/in", "[ \"$RUNTIME_DIRECTORY\" = @ROOT@/run/units-x-one:@ROOT@/run/units-x-two/in ]"),
    "dynamicuser": ("DynamicUser=yes", "[ $(id -u) -ge 61184 ] && [ $(id -u) -le 65519 ] && [ $(id -u) = $(id -g) ]"),
    "dynamicuser-runtimedirectory": ("DynamicUser=yes\nRuntimeDirectory=units-x-dyn", "touch @ROOT@/run/units-x-dyn/a && [ $(stat -c %u @ROOT@/run/units-x-dyn) = $(id -u) ]"),
    "dynamicuser-fixeduser": ("DynamicUser=yes\nUser=games", "[ $(id -nu) = games ]"),
    "dynamicuser-supplementarygroups": ("DynamicUser=yes\nSupplementaryGroups=1 2", "id -G | grep -qw 1 && id -G | grep -qw 2"),
    "dynamicuser-implied": ("DynamicUser=yes", "grep -q \"NoNewPrivs:.1\" /proc/self/status && ! touch /usr/x && touch /tmp/x"),
    "standardinput-file": ("StandardInput=file:@ROOT@/input", "[ \"$(cat)\" = hello ]"),
    "standardoutput-file": ("StandardOutput=file:@ROOT@/output", "echo done; [ $(cat @ROOT@/output) = done ]"),
    "standardoutput-append": ("StandardOutput=append:@ROOT@/appended", "echo two; [ \"$(tr \"\\n\" . < @ROOT@/appended)\" = one.two. ]"),
    "standardoutput-truncate": ("StandardOutput=truncate:@ROOT@/truncated", "echo two; [ \"$(cat @ROOT@/truncated)\" = two ]"),
    "condition-skip": ("ExecCondition=/bin/sh -c 'exit 1'", "echo ran > @ROOT@/skipped-ran"),
    "condition-failed": ("ExecCondition=/bin/sh -c 'exit 255'", "FAILS true"),
    "basic": ("PrivateTmp=true\nExecStart=touch /tmp/a ; /bin/sh -c 'touch /tmp/b' ; touch /tmp/c\nExecStart=test -f /tmp/a\nExecStart=!test -f /tmp/b\nExecStart=!!test -f /tmp/c\nExecStartPost=rm /tmp/a /tmp/b /tmp/c", "true"),
    "environment-no-substitute": ('Environment="VAR2=word3" "VAR3=$word 5 6"\nExecStart=/bin/sh -c \'[ "$${VAR1-unset}" = unset ] && [ "$${VAR2}" = word3 ]\'\nExecStart=:/bin/sh -c \'[ "$${VAR2}" != word3 ]\'', "true"),
    "specifier-interpolation": ("ExecStart=/bin/sh -c 'printf \"%%s\" \"%%n\" | grep -qx \"%%n\"'", "true"),
    "specifier": ("ExecStart=test %n = x-specifier.service\nExecStart=test %N = x-specifier\nExecStart=test %p = x-specifier\nExecStart=test x%i = x\nExecStart=test %t = /run\nExecStart=test %S = /var/lib\nExecStart=test %C = /var/cache\nExecStart=test %L = /var/log\nExecStart=test %E = /etc\nExecStart=test %T = /tmp\nExecStart=test %V = /var/tmp\nExecStart=test %h = /root\nExecStart=test %u = root\nExecStart=test %U = 0\nExecStart=test %g = root\nExecStart=test %G = 0\nExecStart=sh -c 'test %H = $$(uname -n | sed s/^$$/localhost/)'\nExecStart=sh -c 'test %v = $$(uname -r)'\nExecStart=sh -c 'test %b = $$(tr -d - < /proc/sys/kernel/random/boot_id)'\nExecStart=test %j = specifier\nExecStart=test %f = /x/specifier", "true"),
    "prefix-ignore": ("ExecStartPre=-/bin/false\nExecStartPre=-/nowhere/program", "true"),
    "prefix-argv0": ("ExecStart=@/bin/sh other -c '[ \"$$0\" = other ]'", "true"),
    "startpre-fails": ("ExecStartPre=/bin/false", "FAILS true"),
    "set-credential": ("SetCredential=test-execute.cred:hoge\\x20foo\nEnvironment=WHERE=%d", '[ "$(cat $CREDENTIALS_DIRECTORY/test-execute.cred)" = "hoge foo" ] && [ "$WHERE" = /run/credentials/x-set-credential.service ]'),
    "load-credential": ("LoadCredential=secret:@ROOT@/input\nUser=nobody", '[ "$(cat ${CREDENTIALS_DIRECTORY}/secret)" = hello ] && [ "$(stat -c %a:%U $CREDENTIALS_DIRECTORY/secret)" = 400:nobody ] && ! touch $CREDENTIALS_DIRECTORY/x'),
    "load-credential-over-set": ("SetCredential=a:set\nLoadCredential=a:@ROOT@/input\nSetCredential=b:set\nLoadCredential=b:/nowhere/b", '[ "$(cat $CREDENTIALS_DIRECTORY/a $CREDENTIALS_DIRECTORY/b | tr -d [:space:])" = helloset ]'),
    "load-credential-from-store": ("LoadCredential=stored\nUser=daemon", '[ "$(cat $CREDENTIALS_DIRECTORY/stored)" = kept ]'),
    "load-credential-missing": ("LoadCredential=secret:/nowhere/secret", "FAILS true"),
    "passenvironment": ("PassEnvironment=UNITS_TEST_MARK HOME NOBODY_HAS_SET_THIS", '[ "$UNITS_TEST_MARK${NOBODY_HAS_SET_THIS-unset}" = 1unset ]'),
    "standardinput-text": ("StandardInputText=one\\x20more\nStandardInputData=dHdv\nStandardInputText=three", '[ "$(tr "\\n" . )" = "one more.twothree." ]'),
    "standardinput-data": ("StandardInput=data\nStandardInputData=dGhyZWUgAP8=", '[ $(wc -c) = 8 ]'),
    "standardinput-text-not-read": ("StandardInput=null\nStandardInputText=one", '[ -z "$(cat)" ]'),
    "statedirectory-link": ("StateDirectory=units-x-zzz:units-x-a units-x-zzz:in/units-x-b units-x-c\\:d", '[ "$STATE_DIRECTORY" = @ROOT@/var/lib/units-x-zzz:@ROOT@/var/lib/units-x-c:d ] && touch @ROOT@/var/lib/units-x-a/f && [ -f @ROOT@/var/lib/in/units-x-b/f ] && [ -d @ROOT@/var/lib/units-x-c:d ]'),
    "statedirectory-owner-changes": ("StateDirectory=units-x-old\nUser=nobody", '[ $(stat -c %U @ROOT@/var/lib/units-x-old/deep/file) = nobody ] && [ $(stat -c %U @ROOT@/input) = root ]'),
    "statedirectory-under-tmpfs": ("StateDirectory=units-x-kept\nTemporaryFileSystem=@ROOT@/var/lib", 'touch $STATE_DIRECTORY/a && [ "$(ls @ROOT@/var/lib)" = units-x-kept ]'),
    "syslogidentifier": ("SyslogIdentifier=lol", "true"),
}  # fmt: skip
LOST = (
    "Personality=x86",
    "TimerSlackNSec=5us",
    "RootImage=/nowhere",
    "NetworkNamespacePath=/run/netns/x",
    "KeyringMode=shared",
    "MountImages=/x:/y",
)


def escaped(script: str) -> str:
    """As one word of ExecStart=."""
    return script.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")


def prepare(stage: Stage) -> None:
    root = stage.root
    (root / "env").write_text("VAR1='word1 word2'\n# a comment\nVAR2=word3\n;VAR4=x\nVAR3='$word 5 6'\n")
    (root / "env.d").mkdir()
    (root / "env.d/1.conf").write_text("FIRST=one\n")
    (root / "env.d/2.conf").write_text("SECOND=two\n")
    (root / "input").write_text("hello\n")
    (root / "etc/credstore").mkdir()
    (root / "etc/credstore/stored").write_text("kept")
    (root / "var/lib/units-x-old/deep").mkdir(parents=True)
    (root / "var/lib/units-x-old/deep/file").touch()
    (root / "var/lib/units-x-old/link").symlink_to(root / "input")
    (root / "appended").write_text("one\n")
    (root / "truncated").write_text("a long line of before\n")
    (root / "programs").mkdir()
    (root / "programs/only-there").write_text("#!/bin/sh\nexit 0\n")
    (root / "programs/only-there").chmod(0o755)
    root.chmod(0o755)
    for name, (directives, script) in CASES.items():
        text = (
            f"[Service]\nType=oneshot\n{directives}\nExecStart=/bin/sh -c '{escaped(script.removeprefix('FAILS '))}'\n"
        )
        text = text.replace("@ROOT@", str(root)).replace("@CPUS@", str(len(os.sched_getaffinity(0))))
        (stage.directory / f"x-{name}.service").write_text(text)


async def run_all(root: Path) -> dict[str, tuple[str, str]]:
    stage = Stage(root)
    prepare(stage)
    found: dict[str, tuple[str, str]] = {}
    async with stage.running() as units:
        await stage.until(lambda: all(one.history and one.state in AT_REST for one in units.pictures()))
        for name in CASES:
            picture = units.picture(f"x-{name}")
            with trio.move_on_after(5):
                lines = [line.text async for line in units.logs(f"x-{name}")]
            about = "; ".join(str(one) for one in units.problems() if f"x-{name}.service" in str(one))
            found[name] = (picture.state, f"{picture.reason}: {lines[-5:]} {about}")
    return found


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, tuple[str, str]]]:
    os.environ["UNITS_TEST_MARK"] = "1"
    directory = Path(tempfile.mkdtemp(prefix="units-execute-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield trio.run(run_all, directory / "root")
    finally:
        del os.environ["UNITS_TEST_MARK"]
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("name", CASES)
def test_a_directive_means_what_it_means_to_systemd(outcomes: dict[str, tuple[str, str]], name: str) -> None:
    state, about = outcomes[name]
    wanted = ("failed", "backoff") if CASES[name][1].startswith("FAILS ") else ("stopped", "exited")
    assert state in wanted, about


@pytest.mark.parametrize("directive", LOST)
def test_what_has_no_equal_is_said_with_its_line(tmp_path: Path, directive: str) -> None:
    file = tmp_path / "lost.service"
    file.write_text(f"[Service]\nExecStart=/bin/true\n{directive}\n")
    found = [str(one) for one in read_unit_file(str(file))[2]]
    assert len(found) == 1
    assert f"lost.service:3:1: warning: Service.{directive.partition('=')[0]}: has no equal here" in found[0]
