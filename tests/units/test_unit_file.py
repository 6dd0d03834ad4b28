# ruff: noqa: E501 (one broken file and its finding a line)
"""Each broken unit file gives its exact finding, at its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.schema import Source
from appliance.units import parse_unit

GOOD = '[service]\ncommand = ["sleep", "1"]\n'
NOT_YET = "not supported yet in this version"
NAME = "the name of a unit: letters, digits, dots, dashes and underscores"

BROKEN = [
    ("", "1:1: service: missing; expected a table [service] with at least a command, or [unit] for a target"),
    ("[service]\n", '1:2: service.command: missing; expected a list of strings such as ["/usr/bin/sleep", "1h"]'),
    ("[service]\ncommand = []\n", "2:1: service.command: found a length of 0, expected at least 1"),
    ('[service]\ncommand = [""]\n', "2:1: service.command: found an empty program name, expected a path or a name to look up in PATH"),
    ('[service]\ncommand = ["bin/x"]\n', '2:1: service.command: found the relative path "bin/x", expected an absolute path or a bare name to look up in PATH'),
    ("[service]\ncommand = 3\n", '2:1: service.command: found the integer 3, expected a list of strings such as ["/usr/bin/sleep", "1h"]'),
    ('[service]\ncommand = ["a", 1]\n', "2:17: service.command[1]: found the integer 1, expected a string"),
    ("[service]\ncommand = 'a \"b'\n", '2:1: service.command: found "a \\"b", which cannot be cut into words: No closing quotation'),
    (GOOD + 'typ = "exec"\n', '3:1: service.typ: unknown key; did you mean "type"? '),
    (GOOD + 'type = "notfy"\n', '3:1: service.type: found "notfy", expected "simple", "exec", "oneshot", "notify", "notify-reload", "forking" or "idle"; did you mean "notify"?'),
    (GOOD + 'pid_file = "/run/x.pid"\n', '3:1: service.pid_file: found a pid_file, expected type = "forking", not "simple"'),
    (GOOD + 'pid_file = "x.pid"\ntype = "forking"\n', '3:1: service.pid_file: found "x.pid", expected an absolute path'),
    (GOOD + "type = 1\n", '3:1: service.type: found the integer 1, expected "simple", "exec", "oneshot", "notify", "notify-reload", "forking" or "idle"'),
    (GOOD + "stop_timeout = 5\n", '3:1: service.stop_timeout: found the integer 5, expected a duration such as "5s" (a string with a unit) or "infinity"'),
    (GOOD + 'stop_timeout = "5 parsecs"\n', '3:1: service.stop_timeout: found "5 parsecs", expected a duration such as '),
    (GOOD + 'start_timeout = "1x"\n', '3:1: service.start_timeout: found "1x", expected a duration such as '),
    (GOOD + 'working_directory = "data"\n', '3:1: service.working_directory: found "data", expected an absolute path'),
    (GOOD + 'user = "a b"\n', '3:1: service.user: found "a b", expected the name or number of an account'),
    (GOOD + 'user = 0\n', "3:1: service.user: found the integer 0, expected the name or number of an account"),
    (GOOD + 'umask = "9"\n', '3:1: service.umask: found "9", expected an octal mask such as "0022"'),
    (GOOD + 'environment = { "A-B" = "1" }\n', '3:1: service.environment: found the variable name "A-B", expected letters, digits and underscores'),
    (GOOD + 'environment = { A = 1 }\n', "3:17: service.environment.A: found the integer 1, expected a string"),
    (GOOD + 'environment = { NOTIFY_SOCKET = "x" }\n', "3:1: service.environment: found NOTIFY_SOCKET, which the appliance sets itself"),
    (GOOD + 'environment = ["A=1"]\n', "3:1: service.environment: found a list of 1, expected a table"),
    ('[unit]\nrequires = "db"\n' + GOOD, '2:1: unit.requires: found the string "db", expected a list of strings'),
    ('[unit]\nrequires = ["d b"]\n' + GOOD, f'2:13: unit.requires[0]: found "d b", expected {NAME}'),
    ('[unit]\nafter = ["x"]\n' + GOOD, '2:1: unit.after: names the unit itself, "x"'),
    ('[unit]\ndescripton = "hi"\n' + GOOD, '2:1: unit.descripton: unknown key; did you mean "description"? '),
    ('[Unit]\ndescription = "hi"\n' + GOOD, '1:2: Unit: unknown key; did you mean "unit"? '),
    ('[unit]\nbinds_to = ["x"]\n' + GOOD, '2:1: unit.binds_to: names the unit itself, "x"'),
    ('[unit]\nconflicts = ["x.service"]\n' + GOOD, '2:1: unit.conflicts: names the unit itself, "x"'),
    ('[unit]\nwants = "a"\n[logs]\nlimit = "1M"\n', '2:1: unit.wants: found the string "a", expected a list of strings'),
    ('[unit]\n[logs]\nlimit = "1M"\n', "2:2: logs: stands without a table [service]"),
    ('[unit]\n[restart]\npolicy = "no"\n', "2:2: restart: stands without a table [service]"),
    (GOOD + 'pre_start = ["./x"]\n', '3:1: service.pre_start: found the relative path "./x", expected an absolute path or a bare name'),
    (GOOD + 'post_start = [["a"], ["b/c", "d"]]\n', '3:1: service.post_start: command 2: found the relative path "b/c", expected an absolute'),
    (GOOD + 'reload = { command = "" }\n', "3:12: service.reload.command: found a length of 0, expected at least 1"),
    (GOOD + 'reload = "x"\nreload_signal = "SIGHUP"\n', "4:1: service.reload_signal: found reload and reload_signal, expected only one of them"),
    (GOOD + "commands = [['a']]\n", "3:1: service.commands: found command and commands, expected only one of them"),
    ("[service]\ncommands = [['a'], ['b']]\n", '2:1: service.commands: found 2 commands, expected one, or type = "oneshot"'),
    (GOOD + 'kill_signal = "SIGSTERM"\n', '3:1: service.kill_signal: found "SIGSTERM", expected a signal such as "SIGTERM"'),
    (GOOD + 'kill_mode = "all"\n', '3:1: service.kill_mode: found "all", expected "control-group", "mixed", "process" or "none"'),
    (GOOD + "success_exit_codes = [300]\n", "3:1: service.success_exit_codes: found the exit code 300, expected 0 to 255"),
    (GOOD + 'success_exit_codes = ["X"]\n', '3:1: service.success_exit_codes: found "X", expected an exit code such as 3, or a signal'),
    (GOOD + 'environment_file = "x"\n', '3:1: service.environment_file: found "x", expected an absolute path'),
    (GOOD + 'runtime_directory = ["/x"]\n', '3:22: service.runtime_directory[0]: found "/x", expected a path without / in front'),
    (GOOD + 'runtime_directory = ["a/../b"]\n', '3:22: service.runtime_directory[0]: found "a/../b", expected a path without / in front'),
    (GOOD + 'standard_output = "syslog"\n', '3:1: service.standard_output: found "syslog", expected "journal", "null"'),
    (GOOD + 'type = "notify"\nnotify_access = "none"\n', '4:1: service.notify_access: found "none", but type = "notify" waits'),
    (GOOD + '[health]\ntcp = "a:1"\nhost = "x"\n', "5:1: health.host: is only for a check by http"),
    (GOOD + '[health]\nhttp = "http://x/"\nstatus = [20]\n', "5:1: health.status: found the status 20, expected 100 to 599"),
    (GOOD + '[restart]\njitter = 0.5\n', "4:1: restart.jitter: found the float 0.5, expected a duration such as "),
    (GOOD + "[timer]\njitter = '5m'\n", '3:2: timer: says no time, expected calendar = "daily", every = "15m" or another one'),
    (GOOD + '[[socket]]\nlisten = "80"\n', '4:1: socket[0].listen: found the port "80" alone, and nobody can tell which addresses are meant; write "[::]:80" for all'),
    (GOOD + "[sandbox]\nprivate_tpm = true\n", '4:1: sandbox.private_tpm: unknown key; did you mean "private_tmp"? '),
    (GOOD + "[sandbox]\nprivate_tmp = 1\n", "4:1: sandbox.private_tmp: found the integer 1, expected "),
    (GOOD + '[resources]\nmemory_max = "lots"\n', '4:1: resources.memory_max: found "lots", expected '),
    (GOOD + "[resources]\ncpu_weight = 0\n", '4:1: resources.cpu_weight: found "0", expected a number from 1 to 10000'),
    ('[unit]\nrequisite = ["x"]\n' + GOOD, '2:1: unit.requisite: names the unit itself, "x"'),
    ('[unit]\npart_of = 1\n' + GOOD, "2:1: unit.part_of: found the integer 1, expected a list of strings"),
    ('[unit]\nupholds = ["x"]\n' + GOOD, '2:1: unit.upholds: names the unit itself, "x"'),
    ('[unit]\non_failure = ["a/b"]\n' + GOOD, f'2:15: unit.on_failure[0]: found "a/b", expected {NAME}'),
    ('[unit]\non_success = [""]\n' + GOOD, f'2:15: unit.on_success[0]: found "", expected {NAME}'),
    ('[unit]\nwants = ["web@"]\n' + GOOD, f'2:10: unit.wants[0]: found "web@", expected {NAME}'),
    ('[unit]\nspecifiers = "yes"\n' + GOOD, '2:1: unit.specifiers: found the string "yes", expected true or false'),
    ('[unit]\nspecifiers = true\n[service]\ncommand = ["%Q"]\n', "4:12: service.command[0]: found the unknown specifier %Q; write %% for a percent sign"),
    ('[unit.conditions]\npath_exist = ["/a"]\n' + GOOD, '2:1: unit.conditions.path_exist: unknown key; did you mean "path_exists"? '),
    ('[unit.conditions]\npath_exists = ["a"]\n' + GOOD, '2:16: unit.conditions.path_exists[0]: found "a", expected an absolute path'),
    ('[unit.conditions]\ncpus = ["many"]\n' + GOOD, '2:9: unit.conditions.cpus[0]: found "many", expected a number to compare with'),
    ('[unit.conditions]\nmemory = 3\n' + GOOD, "2:1: unit.conditions.memory: found the integer 3, expected a list of strings"),
    (GOOD + "[placement]\nglobal = true\n", f"3:2: placement: {NOT_YET}"),
    ('[container]\nimage = "x"\n', f"1:2: container: {NOT_YET}"),
    (GOOD + '[restart]\npolicy = "allways"\n', '4:1: restart.policy: found "allways", expected "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog" or "no"; did you mean "always"?'),
    (GOOD + '[restart]\ndelay = "2s"\ndelay_max = "1s"\n', "5:1: restart.delay_max: is smaller than delay"),
    (GOOD + "[restart]\nlimit = { burst = 3 }\n", "4:1: restart.limit.interval: missing; expected a duration such as "),
    (GOOD + '[restart]\nlimit = { burst = 0, interval = "1s" }\n', "4:11: restart.limit.burst: found the integer 0, expected at least 1 and at most 1000"),
    (GOOD + 'type = "oneshot"\n[restart]\npolicy = "always"\n', '5:1: restart.policy: found "always" for a oneshot, expected "on-failure" or "no"'),
    (GOOD + 'type = "oneshot"\n[health]\ntcp = "a:1"\n', "4:2: health: found a health check of a oneshot, which is not running once it is ready"),
    (GOOD + "[health]\n", "3:2: health: says nothing to check, expected one of http, tcp, command"),
    (GOOD + '[health]\nhttp = "http://x/"\ntcp = "x:1"\n', "5:1: health.tcp: found http and tcp, expected only one of http, tcp, command"),
    (GOOD + '[health]\nhttp = "https://x/"\n', '4:1: health.http: found "https://x/", expected an address such as http://127.0.0.1:8080/healthz'),
    (GOOD + '[health]\ntcp = "80"\n', '4:1: health.tcp: found "80", expected an address such as 127.0.0.1:8080'),
    (GOOD + '[health]\ntcp = "a:1"\nthreshold = 0\n', "5:1: health.threshold: found the integer 0, expected at least 1 and at most 1000"),
    (GOOD + '[logs]\nlimit = "1K"\n', "4:1: logs.limit: found 1K, expected at least 64K"),
    (GOOD + '[logs]\nlimit = "lots"\n', '4:1: logs.limit: found "lots", expected a size such as '),
    (
        GOOD + '[logs]\nrate = "fast"\n',
        '4:1: logs.rate: found "fast", expected lines per time, such as "1000/10s", or "unlimited"',
    ),
    (GOOD + '[logs]\nrate = "0/10s"\n', '4:1: logs.rate: found "0/10s", expected lines per time, such as '),
    (GOOD + 'exit_type = "all"\n', '3:1: service.exit_type: found "all", expected "main" or "cgroup"'),
    (GOOD + 'standard_input = "data"\ninput_data = "?"\n', "4:1: service.input_data: found what is no base 64"),
    (GOOD + 'input_text = "x"\n', '1:2: service.standard_input: found something to read besides, expected "data"'),
    (GOOD + 'pass_environment = ["A=1"]\n', '3:21: service.pass_environment[0]: found "A=1", expected the name of a variable'),
    (GOOD + 'sockets = ["web"]\n', '3:12: service.sockets[0]: found "web", expected the name of a unit such as web.socket'),
    (GOOD + 'state_directory = ["a:../b"]\n', '3:20: service.state_directory[0]: found "a:../b", expected a path without / in front and without ..'),
    (GOOD + '[[socket]]\nlisten = "[::]:80"\nlinks = ["/run/x"]\n', "5:1: socket[0].links: counts only for paths"),
    (GOOD + '[[socket]]\nlisten = "[::]:80"\noptions = { ttl = 0 }\n', "5:13: socket[0].options.ttl: found the integer 0, expected at least 1 and at most 255"),
    (GOOD + '[[socket]]\nlisten = "[::]:80"\noptions = { nodelay = true }\n', "5:13: socket[0].options.nodelay: unknown key"),
    ('[unit.conditions]\nac_power = ["perhaps"]\n' + GOOD, '2:13: unit.conditions.ac_power[0]: found "perhaps", expected "yes" or "no"'),
    ('[unit]\nstop_when_unneeded = "yes"\n' + GOOD, '2:1: unit.stop_when_unneeded: found the string "yes", expected true or false'),
    (GOOD + '[logs]\nage = "1s"\n', '4:1: logs.age: found 1s, expected at least 1m'),
    ("[service\n", "1:9: not TOML: "),
    ("[service]\ncommand = sleep\n", '2:11: not TOML: invalid value; a string needs quotes: "sleep"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BROKEN)
def test_a_broken_file_gives_its_finding(text: str, expected: str) -> None:
    parsed = parse_unit(text, "/u/x.toml")
    assert parsed.unit is None
    found = [str(one) for one in parsed.findings]
    assert any(one.startswith(f"/u/x.toml:{expected}") for one in found), "\n".join(found)
    assert len(found) == 1, found


def test_there_are_enough_of_them() -> None:
    assert len(BROKEN) >= 80


def test_all_findings_are_given_at_once() -> None:
    parsed = parse_unit('[unit]\nx = 1\n[service]\ntype = "a"\n[restart]\npolicy = 3\n', "x.toml")
    assert [one.path for one in parsed.findings] == ["unit.x", "service.type", "restart.policy"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("@1.toml", 'the file name gives the unit the name "@1"'),
        ("a b.toml", 'the file name gives the unit the name "a b", expected the name of a unit'),
        ("-x.toml", 'the file name gives the unit the name "-x"'),
        ("x.txt", "a unit file is called NAME.toml"),
    ],
)
def test_file_names(file: str, message: str) -> None:
    parsed = parse_unit(GOOD, f"/u/{file}")
    assert parsed.unit is None
    assert message in parsed.findings[0].message


def test_defaults() -> None:
    parsed = parse_unit("[service]\ncommand = 'sleep \"1 2\"'\n", "/u/x.toml")
    assert parsed.unit is not None
    assert parsed.unit.document.service.command == ("sleep", "1 2")
    assert parsed.unit.restart_policy == "on-failure"
    assert parsed.unit.document.service.start_seconds_max() == 90


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_unit_or_an_error(text: str) -> None:
    for whole in (text, GOOD + text, f"[service]\ncommand = {text}\n"):
        parsed = parse_unit(whole, "x.toml")
        assert (parsed.unit is None) == any(one.severity == "error" for one in parsed.findings)


def test_files_that_say_the_same_are_one_in_memory_and_each_its_own_unit() -> None:
    text = '[unit]\nafter = ["b.service"]\n' + GOOD
    first, second, itself = (parse_unit(text, f"/u/{name}.toml") for name in "acb")
    assert first.unit is not None
    assert second.unit is not None
    assert second.unit.document is first.unit.document
    assert (second.unit.name, second.unit.file, second.unit.text) == ("c", "/u/c.toml", text)
    assert "names the unit itself" in str(itself.findings[0])
    assert parse_unit(text, "/u/bad name.toml").unit is None
    other = parse_unit(text, "/u/d.toml", drop_ins=[Source("/u/d.toml.d/x.toml", "[unit]\nafter = []\n")]).unit
    assert other is not None
    assert other.document.unit.after == ()
    for name in "xy":  # with specifiers each is read for itself
        unit = parse_unit('[unit]\ndescription = "%n"\nspecifiers = true\n' + GOOD, f"/u/{name}.toml").unit
        assert unit is not None
        assert unit.document.unit.description == name
