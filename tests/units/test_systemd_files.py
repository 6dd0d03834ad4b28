# ruff: noqa: E501 (tables of files, one line each)
"""Unit files of systemd in the units directory: read as they are, converted, verified; systemd's own verify is asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cli import main
from appliance.schema import Source, to_plain
from appliance.units import UnitDocument, parse_unit, read_unit_file, read_unit_files
from appliance.units.systemd_files import converted_text, parse_systemd_unit
from appliance.units.unit_directory import enabled_with

BROKEN = """\
[Unit]
Description=x
After=nosuffix
Wants=foo.service
ConditionPathExists=relative
Conditoin=1
Bogus=1

[Service]
Type=simple
ExecStart=/bin/sleep \\
# a comment within
  1h
ExecStartPre=-relative/path
TimeoutStopSec=5 parsecs
Restart=sometimes
RestartSec=abc
LimitNOFILE=many
Nice=99
UMask=999
SystemCallFilter=@system-service nosuchcall
RestrictAddressFamilies=AF_INET AF_NONSENSE
ReadWritePaths=relative /tmp
Environment=A=1 2B=3 "C=x y"
EnvironmentFile=relative
KillSignal=SIGNOPE
KillMode=gently
MemoryMax=lots
CPUQuota=half
TasksMax=0
OOMScoreAdjust=5000
StandardOutput=somewhere
PrivateTmp=maybe
ProtectSystem=perhaps
RuntimeDirectory=/abs
just text
X-Custom=1
[Nonsense]
A=1
[Install]
WantedBy=multi-user.target
"""


def document(text: str, kind: str = ".service", name: str = "x") -> UnitDocument:
    parsed = parse_systemd_unit([Source(f"/u/{name}{kind}", text)])
    assert parsed.unit is not None, "\n".join(map(str, parsed.findings))
    return parsed.unit.document


def service(text: str) -> UnitDocument:
    return document(f"[Service]\nExecStart=/bin/true\n{text}")


def test_what_is_warned_of_is_what_systemd_warns_of(tmp_path: Path) -> None:
    path = tmp_path / "bad.service"
    path.write_text(BROKEN)
    asked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    theirs = {int(line.split(":")[1]) for line in asked.stderr.splitlines() if line.startswith(f"{path}:")}
    _, unit, findings = read_unit_file(str(path))
    assert {one.line for one in findings} == theirs
    assert len(theirs) == 28
    assert unit is not None
    assert {one.severity for one in findings} == {"warning"}
    sandbox = unit.document.sandbox  # of a list only the bad word is left out: a fence never falls for one word
    assert sandbox.system_calls == ("@system-service",)
    assert sandbox.restrict_address_families == ("AF_INET",)
    assert sandbox.writable_paths == ("/tmp",)
    assert unit.service.environment == {"A": "1", "C": "x y"}
    assert unit.service.command == ("/bin/sleep", "1h")


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (
            "[Service]\nUser=a b\nExecStart=/bin/true",
            '2:1: Service.User: found "a b", expected the name or number of an account',
        ),
        ("[Service]\nExecStart=true/x", '2:1: Service.ExecStart: found the relative path "true/x"'),
        ("[Service]\nExecStart=/bin/sh -c 'a", "2:1: Service.ExecStart: found a ' that is not closed"),
        ("[Service]\nExecStart=/a\nExecStart=/b", "2:1: Service.ExecStart: found 2 commands"),
        ("[Service]\nType=oneshot\nRestart=always\nExecStart=/a", '3:1: Service.Restart: found "always" for a oneshot'),
        ("[Service]\nWorkingDirectory=x\nExecStart=/a", "2:1: Service.WorkingDirectory: found"),
        ("[Service]\nType=odd\nExecStart=/a", "2:1: Service.Type: found"),
        ("[Service]\nRestart=no", "1:1: service.command: missing"),
        ("[Service\nExecStart=/a", '1:1: found "[Service", expected a section'),
    ],
)
def test_what_decides_what_runs_is_never_guessed(text: str, finding: str) -> None:
    parsed = parse_systemd_unit([Source("/u/x.service", text)])
    assert parsed.unit is None
    assert any(str(one).startswith(f"/u/x.service:{finding}") for one in parsed.findings), parsed.findings


def test_defaults_are_those_of_systemd() -> None:
    found = service("")
    assert found.service is not None
    assert (found.restart.policy, found.restart.delay, found.restart.delay_max) == ("no", 0.1, 0.1)
    assert found.restart.limit is not None
    assert (found.restart.limit.burst, found.restart.limit.interval) == (5, 10.0)
    assert (found.service.stop_timeout, found.service.type) == (90.0, "simple")
    assert document("[Service]\nExecStop=/bin/true\nRemainAfterExit=yes").service.type == "oneshot"  # type: ignore[union-attr]
    assert service("StartLimitIntervalSec=0").restart.limit is None
    assert service("TimeoutSec=0").service.stop_timeout == float("inf")  # type: ignore[union-attr]
    assert service("Restart=always\nRestartSec=2\nRestartSteps=3\nRestartMaxDelaySec=1min").restart.delay_max == 60


@pytest.mark.parametrize(
    ("text", "table", "key", "value"),
    [
        ("CapabilityBoundingSet=", "sandbox", "capabilities", ()),
        ("CapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=CAP_KILL", "sandbox", "capabilities", ("CAP_CHOWN", "CAP_KILL")),
        ("CapabilityBoundingSet=~CAP_CHOWN\nCapabilityBoundingSet=~CAP_KILL", "sandbox", "capabilities", ("~CAP_CHOWN", "CAP_KILL")),
        ("CapabilityBoundingSet=CAP_CHOWN CAP_KILL\nCapabilityBoundingSet=~CAP_KILL", "sandbox", "capabilities", ("CAP_CHOWN",)),
        ("CapabilityBoundingSet=CAP_NONSENSE", "sandbox", "capabilities", ()),
        ("CapabilityBoundingSet=~CAP_NONSENSE CAP_KILL", "sandbox", "capabilities", ("~CAP_KILL",)),
        ("CapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=~", "sandbox", "capabilities", None),
        ("SystemCallFilter=@system-service\nSystemCallFilter=~@privileged @resources", "sandbox", "system_calls", ("@system-service", "~@privileged", "~@resources")),
        ("SystemCallFilter=~@clock:EPERM\nSystemCallErrorNumber=EACCES", "sandbox", "system_call_error", "EACCES"),
        ("SystemCallFilter=@clock\nSystemCallFilter=", "sandbox", "system_calls", ()),
        ("RestrictNamespaces=~user", "sandbox", "restrict_namespaces", ("~user",)),
        ("RestrictNamespaces=yes", "sandbox", "restrict_namespaces", True),
        ("ProtectSystem=full", "sandbox", "read_only_root", "full"),
        ("ReadOnlyPaths=-/etc +/x", "sandbox", "bind_read_only_paths", ("-/etc", "/x")),
        ("ReadWritePaths=/a\nReadWritePaths=\nReadWritePaths=/b", "sandbox", "writable_paths", ("/b",)),
        ("LimitNOFILE=1:2", "limits", "nofile", "1:2"),
        ("LimitNICE=-5", "limits", "nice_max", "-5"),
        ("LimitAS=1G", "limits", "as_", 1 << 30),
        ("CPUAffinity=0-3 5\nCPUAffinity=7", "limits", "cpu_affinity", "0-3,5,7"),
        ("IOSchedulingClass=3", "limits", "io_scheduling", "idle"),
        ("MemoryMax=20%", "resources", "memory_max", "20%"),
        ("MemoryLimit=1G", "resources", "memory_max", "1G"),
        ("CPUShares=512", "resources", "cpu_weight", 50),
        ("Delegate=cpu bpf-firewall", "resources", "delegate", ("cpu",)),
        ("OOMPolicy=kill", "resources", "oom_group", True),
        ("SuccessExitStatus=143 SIGKILL TEMPFAIL", "service", "success_exit_codes", (143, "SIGKILL", "TEMPFAIL")),
        ("StandardOutput=append:/x", "service", "standard_output", "append:/x"),
        ("StandardOutput=inherit", "service", "standard_output", "null"),
        ("Environment=A=$B\\x41 'B=c d' \"E=\"\nEnvironment=A=2", "service", "environment", {"A": "2", "B": "c d", "E": ""}),
        ("Environment=A=1\nEnvironment=", "service", "environment", {}),
        ("ExecStop=/a x\nExecStop=\nExecStop=/b", "service", "stop", (("/b",),)),
        ("WatchdogSec=0", "service", "watchdog_timeout", None),
        ("RuntimeDirectory=a b/c", "service", "runtime_directory", ("a", "b/c")),
        ("UMask=077", "service", "umask", "0077"),
        ("WorkingDirectory=-~", "service", "working_directory", "-~"),
    ],
)  # fmt: skip
def test_directives(text: str, table: str, key: str, value: object) -> None:
    assert getattr(getattr(service(text), table), key) == value


def test_triggers_targets_and_install() -> None:
    timer = document("[Timer]\nOnCalendar=daily\nOnBootSec=1min 30s\nUnit=y.service\nPersistent=true\n", ".timer").timer
    assert timer is not None
    assert (timer.calendar, timer.on_boot, timer.unit, timer.persistent) == (("daily",), 90.0, "y", True)
    sockets = document(
        "[Socket]\nListenStream=80\nListenStream=/run/x.sock\nListenDatagram=127.0.0.1:53\nSocketUser=root\nAccept=no\n"
        "BindIPv6Only=both\nFileDescriptorName=a\n", ".socket",
    ).socket  # fmt: skip
    assert [(one.listen, one.type, one.user, one.v6only, one.name) for one in sockets] == [
        ("[::]:80", "stream", None, False, "a"), ("/run/x.sock", "stream", "root", None, "a"),
        ("127.0.0.1:53", "dgram", None, False, "a"),
    ]  # fmt: skip
    path = document("[Path]\nPathExists=/a\nPathChanged=/b\nMakeDirectory=yes\n", ".path").path
    assert path is not None
    assert (path.path_exists, path.path_changed, path.make_directory) == (("/a",), ("/b",), True)
    target = document(
        "[Unit]\nRequires=a.service\nAfter=b.timer\n[Install]\nWantedBy=multi-user.target\nAlias=z.target\n", ".target"
    )
    assert target.service is None
    assert (target.unit.requires, target.unit.after, target.install.alias) == (("a",), ("b.timer",), ("z.target",))


def test_specifiers_are_those_of_systemd() -> None:
    text = "[Unit]\nDescription=%n %N %p %i %Z 100%% %\n[Service]\nExecStart=/bin/echo %I\n"
    parsed = parse_systemd_unit([Source("/u/web@.service", text)], name="web@a-b", host={})
    assert parsed.unit is not None
    assert parsed.unit.document.unit.description == "web@a-b.service web@a-b web a-b %Z 100% %"
    assert parsed.unit.service.command == ("/bin/echo", "a/b")
    timer = parse_systemd_unit(
        [Source("/u/web@.timer", "[Unit]\nDescription=%n %N %p %i\n[Timer]\nOnBootSec=1")], name="web@1.timer"
    )
    assert timer.unit is not None
    assert timer.unit.document.unit.description == "web@1.timer web@1 web 1"
    assert timer.unit.triggers[0].unit is None
    assert timer.unit.target_of(timer.unit.triggers[0]) == "web@1"


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def test_drop_ins_by_name_with_the_nearest_directory_first(tmp_path: Path) -> None:
    write(tmp_path, {
        "foo-bar.service": "[Service]\nExecStart=/bin/main\nEnvironment=A=main B=main\n",
        "service.d/10.conf": "[Service]\nEnvironment=A=type C=type\n",
        "foo-.service.d/20.conf": "[Service]\nEnvironment=A=prefix\nNice=1\n",
        "foo-bar.service.d/10.conf": "[Service]\nEnvironment=A=own\n",
        "foo-bar.service.d/30.conf": "[Service]\nExecStart=\nExecStart=/bin/other\nNice=99\n",
        "foo-bar.service.d/README": "no drop-in",
        "foo-bar.toml.d/90.toml": "[service]\nuser = 'nobody'\n",
    })  # fmt: skip
    os.symlink("/dev/null", tmp_path / "foo-bar.service.d/05.conf")
    name, unit, findings = read_unit_file(str(tmp_path / "foo-bar.service"))
    assert unit is not None
    assert name == "foo-bar"
    assert unit.service.environment == {"A": "prefix", "B": "main"}
    assert (unit.service.command, unit.document.limits.nice, unit.service.user) == (("/bin/other",), 1, "nobody")
    assert [(Path(one.file).name, one.line) for one in findings] == [("30.conf", 4)]
    assert [Path(one.file).name for one in unit.drop_ins] == ["10.conf", "20.conf", "30.conf", "90.toml"]


def test_a_directory_of_both_kinds(tmp_path: Path) -> None:
    write(tmp_path, {
        "web.service": "[Unit]\nRequires=network-online.target db.service -.mount\nAfter=sql.service\n[Service]\nExecStart=/bin/a\n"
        "[Install]\nWantedBy=multi-user.target\nAlias=www.service\nAlso=web.socket\n",
        "web.socket": "[Socket]\nListenStream=/run/web.sock\n",
        "db.toml": "[unit]\nafter = ['time-sync.target']\nrequires = ['time-sync.target']\n[service]\ncommand = ['/bin/b']\n[install]\nalias = ['sql']\n",
        "old.service": "[Service]\nExecStart=/bin/c\n",
        "old.toml": "[service]\ncommand = ['/bin/d']\n",
        "tmp.mount": "[Mount]\n",
        "getty@.service": "[Service]\nExecStart=/bin/e %i\n[Install]\nWantedBy=all.target\nDefaultInstance=tty1\n",
        "all.target": "[Unit]\nWants=getty@tty2.service\n",
        "part.service": "[Service]\nExecStart=/bin/f\n[Install]\nWantedBy=all.target\n",
    })  # fmt: skip
    os.symlink("/dev/null", tmp_path / "masked.service")
    (tmp_path / "web.service.wants").mkdir()
    os.symlink("web.service", tmp_path / "weber.service")
    os.symlink("getty@.service", tmp_path / "getty@tty3.service")
    os.symlink("../getty@.service", tmp_path / "web.service.wants" / "getty@tty3.service")
    found = read_unit_files(str(tmp_path))
    assert sorted(found.units) == ["all.target", "db", "getty@tty2", "getty@tty3", "old", "part", "web", "web.socket"]
    assert found.units["old"].service.command == ("/bin/d",)
    assert found.masked == {"masked"}
    assert sorted(str(one).removeprefix(f"{tmp_path}/") for one in found.findings) == [
        "old.service:1:1: warning: is not read, for there is old.toml",
        "tmp.mount:1:1: warning: is not read: there are no units of that kind",
        "web.service:2:1: warning: Unit.Requires: -.mount is ignored: there are no units of that kind here",
    ]
    from appliance.units import graph_of

    graph = graph_of(found)
    assert not graph.refused  # targets that every host has are up
    assert graph.requires["web"] == ("db",)
    assert graph.wants["web"] == ("getty@tty3",)
    assert graph.after["web"] == ("db", "web.socket")  # sql is another name of it
    assert graph.wants["all.target"] == ("getty@tty2", "getty@tty3", "part")
    assert enabled_with(found, ["www"], "enable") == ["web", "web.socket"]
    assert enabled_with(found, ["weber"], "mask") == ["web"]
    assert enabled_with(found, ["getty@"], "enable") == ["getty@tty1"]
    assert enabled_with(found, ["www"], "mask") == ["web"]


def shipped() -> list[str]:
    """Of the packages that are installed: hundreds."""
    below = Path("/lib/systemd/system")
    kinds = (".service", ".timer", ".socket", ".path", ".target")
    return sorted(str(one) for one in below.iterdir() if one.suffix in kinds and one.is_file() and one.stat().st_size)


def test_all_that_debian_ships_is_read_and_converted_to_the_same(tmp_path: Path) -> None:
    paths = shipped()
    assert len(paths) > 100
    bad = []
    for path in paths:
        name, unit, findings = read_unit_file(path)
        unknown = [one for one in findings if "unknown directive" in one.message]
        assert not unknown, unknown
        if unit is None:
            bad.append(Path(path).name)
            continue
        again = parse_unit(converted_text(path)[1], f"{tmp_path}/{name}.toml", host=dict.fromkeys("mHbvugho", "x"))
        direct = parse_unit(unit.text, path, name=name, host=dict.fromkeys("mHbvugho", "x"))
        assert again.unit is not None, again.findings
        assert direct.unit is not None
        assert to_plain(again.unit.document) == to_plain(direct.unit.document), path
    assert set(bad) <= {
        "systemd-exit.service",
        "systemd-reboot.service",
        "systemd-poweroff.service",
        "systemd-halt.service",
        "systemd-kexec.service",
    }  # an end by SuccessAction= alone


WORDS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\\\"'%;#$"), min_size=1, max_size=12
)
DIRECTIVES = st.one_of(
    st.tuples(st.just("Environment"), WORDS.map(lambda text: f'"A={text}"')),
    st.tuples(st.just("ExecStartPre"), st.tuples(st.sampled_from(["", "-", "+", "!", ":", "@"]), WORDS).map(lambda pair: f'{pair[0]}/bin/echo "{pair[1]}" $HOME %%')),
    st.tuples(st.sampled_from(["TimeoutStopSec", "RestartSec", "RuntimeMaxSec", "WatchdogSec"]), st.integers(0, 10**7).map(lambda number: f"{number}ms")),
    st.tuples(st.sampled_from(["LimitNOFILE", "LimitCORE"]), st.integers(0, 10**9).map(str)),
    st.tuples(st.sampled_from(["MemoryMax", "MemoryHigh"]), st.integers(1, 10**12).map(str)),
    st.tuples(st.just("Nice"), st.integers(-30, 30).map(str)),
    st.tuples(st.just("SystemCallFilter"), st.sampled_from(["@system-service", "~@clock", "~@mount:EPERM", "nonsense", ""])),
    st.tuples(st.just("CapabilityBoundingSet"), st.sampled_from(["CAP_CHOWN", "~CAP_KILL", "CAP_KILL CAP_ODD", "", "~"])),
    st.tuples(st.just("Restart"), st.sampled_from(["no", "always", "on-failure", "odd"])),
    st.tuples(st.just("ProtectSystem"), st.sampled_from(["yes", "full", "strict", "no"])),
    st.tuples(st.just("RuntimeDirectory"), st.sampled_from(["a", "a b", "", "/x"])),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(DIRECTIVES, max_size=12), WORDS)
def test_converted_is_the_same_as_read_directly(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]], words: str
) -> None:
    directory = tmp_path_factory.getbasetemp()
    path = directory / "x.service"
    path.write_text(
        f"[Unit]\nDescription={words}\n[Service]\nExecStart=/bin/sleep 1\n" + "\n".join(map("=".join, lines)) + "\n"
    )
    _, unit, findings = read_unit_file(str(path))
    name, text, _ = converted_text(str(path))
    again = parse_unit(text, f"{directory}/{name}.toml")
    assert (unit is None) == (again.unit is None), (findings, again.findings)
    if unit is not None and again.unit is not None:
        assert again.unit.document == unit.document


def test_convert_and_verify_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    units = tmp_path / "etc/appliance/units"
    write(tmp_path, {"web.service": "[Service]\nExecStart=/bin/a %n\nPAMName=x\nDocumentation=y\n"})
    (units).mkdir(parents=True)
    assert main(["--root", str(tmp_path), "unit", "convert", str(tmp_path / "web.service")]) == 0
    said = capsys.readouterr()
    assert "#   [Service] PAMName=x  (web.service:3: has no equal here, ignored)\n" in said.out
    assert 'command = ["/bin/a", "%n.service"]' in said.out
    assert "web.service:3:1: warning: Service.PAMName" in said.err
    for code in (0, 7):
        assert main(["--root", str(tmp_path), "unit", "convert", "--write", str(tmp_path / "web.service")]) == code
    assert read_unit_files(str(units)).units["web"].service.command == ("/bin/a", "web.service")
    assert main(["--root", str(tmp_path), "unit", "verify", str(tmp_path / "web.service")]) == 0
    write(tmp_path, {"bad.timer": "[Timer]\nPersistent=yes\n"})
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "unit", "verify", str(tmp_path / "bad.timer")]) == 2
    assert "bad.timer:1:1: timer: says no time" in capsys.readouterr().out
    assert main(["--root", str(tmp_path), "unit", "convert", str(tmp_path / "bad.timer")]) == 2
