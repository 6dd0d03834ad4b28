"""doctor, support, install, config: what they find, write, say and leave out."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from appliance.cli.checks import check_host
from appliance.cli.install import carry_out
from appliance.cli.redaction import redact, redact_unit
from appliance.cli.service_file import Plan, plan_install, plan_uninstall
from appliance.errors import UnavailableError, UntrustedError
from appliance.host.layout import Layout
from cli.peer import Peer, run

COMMAND = ["/opt/my app/appliance", "run", "--root", "/srv/100%$x"]


def test_config_check_says_all_and_ends_in_2(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[node]\nname = 1\nnmae = 2\n")
    done = run("config", "check", str(file))
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == f"{file}: 2 errors"
    assert [line.split(": ")[1] for line in done.stdout.splitlines()[:2]] == ["node.name", "node.nmae"]
    report = json.loads(run("config", "check", str(file), "-o", "json").stdout)
    assert report["ok"] is False
    assert report["findings"][0] | {"message": ""} == {
        "file": str(file), "line": 2, "column": 1, "path": "node.name", "message": "", "severity": "error",
    }  # fmt: skip


def test_config_check_and_show_of_an_empty_root(tmp_path: Path) -> None:
    done = run("config", "check", "--root", str(tmp_path))
    assert (done.returncode, done.stdout) == (
        0,
        f"no {tmp_path}/etc/appliance/appliance.toml: all defaults: no errors\n",
    )
    assert 'listen = "127.0.0.1:7780"' in run("config", "show", "--root", str(tmp_path)).stdout


def test_config_show_of_a_bad_file_shows_the_findings(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("x = 1")
    done = run("config", "show", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"appliance: cannot use the settings:\n{file}:1:1: x: unknown key")


def test_config_reload_says_whether_it_is_used(peer: Peer) -> None:
    peer.says("POST /v1/reload", {"settings": {"problem": ""}, "reload": {}})
    assert run("config", "reload", "--root", peer.layout.root).stdout == "settings reloaded\n"
    changed = ["status.listen: a -> b", "units.directory: c -> d"]
    outcome = {"changed": changed, "restart_needed": changed[1:], "units": None, "problems": ["it cannot listen"]}
    peer.says("POST /v1/reload", {"settings": {"problem": ""}, "reload": outcome})
    done = run("config", "reload", "--root", peer.layout.root)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "status.listen: a -> b", "units.directory: c -> d (from the next start on)", "problem: it cannot listen",
        "settings reloaded",
    ]  # fmt: skip
    peer.says("POST /v1/reload", {"settings": {"problem": "x.toml:1:1: bad"}})
    done = run("config", "reload", "--root", peer.layout.root)
    assert (done.returncode, done.stdout) == (2, "not used, the old settings are kept: x.toml:1:1: bad\n")
    assert peer.requests[0] == ("POST /v1/reload", b"{}")


def test_doctor_looks_and_leaves_nothing(tmp_path: Path) -> None:
    done = run("doctor", "--root", str(tmp_path), "-o", "json")
    report = json.loads(done.stdout)
    assert {"kernel", "user", "cgroups", "settings", "state", "run", "sockets", "unpack place", "clock", "init"} <= {
        one["name"] for one in report["checks"]
    }
    assert report["ok"] is (done.returncode == 0)
    assert list(tmp_path.iterdir()) == []
    assert "this host can" in run("doctor", "--root", str(tmp_path)).stdout


def test_doctor_finds_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "etc/appliance").mkdir(parents=True)
    (tmp_path / "etc/appliance/appliance.toml").write_text("x = 1")
    (tmp_path / "var").write_text("a file where a directory should be")
    bad = {one.name for one in check_host(Layout(str(tmp_path)), None) if one.state == "bad"}
    assert {"settings", "state"} <= bad


def test_a_systemd_unit() -> None:
    plan = plan_install("systemd", COMMAND, "node-a")
    ((path, text, mode),) = plan.files
    assert (path, mode) == ("/etc/systemd/system/node-a.service", 0o644)
    for line in ("Type=notify", "Restart=always", "KillMode=process", "Delegate=yes"):
        assert f"\n{line}\n" in text
    assert 'ExecStart="/opt/my app/appliance" run --root /srv/100%%$$x\n' in text
    assert plan.commands == (("systemctl", "daemon-reload"), ("systemctl", "enable", "--now", "node-a.service"))
    undo = plan_uninstall("systemd", "node-a")
    assert undo.remove == (path,)
    assert undo.commands_after == (("systemctl", "daemon-reload"),)
    # In a chroot or an image in the making there is nobody to reload, and nothing to start now.
    assert plan_install("systemd", COMMAND, "a", at_work=False).commands == (("systemctl", "enable", "a.service"),)
    later = plan_uninstall("systemd", "a", at_work=False)
    assert (later.commands, later.commands_after) == ((("systemctl", "disable", "a.service"),), ())


def test_an_openrc_script_is_good_shell(tmp_path: Path) -> None:
    ((path, text, mode),) = plan_install("openrc", COMMAND, "appliance").files
    assert (path, mode) == ("/etc/init.d/appliance", 0o755)
    script = tmp_path / "script"
    script.write_text(text)
    show = f'. {script}; eval "set -- $command_args"; printf "%s|" "$command" "$@"'
    shown = subprocess.run(["sh", "-c", show], capture_output=True, text=True, check=True).stdout
    assert shown == "/opt/my app/appliance|run|--root|/srv/100%$x|"


@pytest.mark.parametrize(
    ("init", "line"),
    [
        ("sysv", "ap:2345:respawn:'/opt/my app/appliance'"),
        ("busybox", "::respawn:'/opt/my"),
        ("none", "'/opt/my app"),
    ],
)
def test_other_inits_get_a_line_to_add(init: str, line: str) -> None:
    assert f"\n{line}" in plan_install(init, COMMAND, "appliance").by_hand


def test_install_prints_what_it_would_do(tmp_path: Path) -> None:
    done = run("install", "--dry-run", "--init", "systemd", "--root", str(tmp_path), "--name", "a")
    assert done.returncode == 0
    assert f"run --root {tmp_path}\n" in done.stdout
    assert "# would run: systemctl enable --now a.service\n" in done.stdout
    assert run("install", "--init", "sysv").returncode == 1
    assert run("install", "--dry-run", "--init", "sysv").returncode == 0
    assert run("install", "--dry-run", "--init", "systemd", "--name", "a b").returncode == 2
    assert "# would remove /etc/init.d/appliance" in run("uninstall", "--dry-run", "--init", "openrc").stdout


def test_a_plan_is_carried_out_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(dry_run=False)
    path = str(tmp_path / "made")
    plan = Plan(
        "x",
        files=((path, "text", 0o600),),
        commands=(("cat", path),),
        remove=(path,),
        commands_after=(("ls", str(tmp_path)),),
    )
    if os.geteuid() != 0:
        with pytest.raises(UntrustedError):
            carry_out(args, plan, "install")
        return
    assert carry_out(args, plan, "install") == 0
    told = capfd.readouterr().out
    assert "text" in told
    assert not os.path.exists(path)
    with pytest.raises(UnavailableError, match="cannot run `false`: exit code 1"):
        carry_out(args, Plan("x", commands=(("false",),)), "install")
    with pytest.raises(UnavailableError, match="No such file"):
        carry_out(args, Plan("x", commands=(("/no/such",),)), "install")


PEM = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pw@host/x", "https://***@host/x"),
        ('password = "a \\" b"', 'password = "***"'),
        ("DB_PASSWORD=abc def", "DB_PASSWORD=*** def"),
        ('"api_key": "x", "y": 1', '"api_key": "***", "y": 1'),
        ('token_file = "/etc/x"', 'token_file = "/etc/x"'),
        ('command = ["x", "--password", "geheim"]', 'command = ["x", "--password", "***"]'),
        ("x --token=abc y", "x --token=*** y"),
        (f"{PEM[0]}\nabc\n{PEM[1]}", f"{PEM[0]}***{PEM[1]}"),
        ('name = "web"', 'name = "web"'),
        ('x --password "a b" c', "x --password *** c"),
        ('password = """\na\n"""', 'password = "***"'),
        ("-H 'Authorization: Bearer abc' x", "-H 'Authorization: *** x"),
        ('["curl", "-u", "me:geheim"]', '["curl", "-u", "me:***"]'),
    ],
)  # fmt: skip
def test_secrets_are_taken_out(text: str, clean: str) -> None:
    assert redact(text) == clean


UNIT = '''\
[service]
command = ["web"]
environment = { A = "hidden1", B = "hidden2" }
user = "kept"
environment = {
  A = "hidden3",
}
[service.environment]
C = "hidden4"
"D" = """
hidden5
"""
[restart]
delay = "1s"
'''


def test_no_value_of_an_environment_leaves_the_host() -> None:
    text = redact_unit(UNIT)
    assert "hidden" not in text
    assert 'user = "kept"' in text
    assert '[restart]\ndelay = "1s"' in text
    assert 'C = "***"' in text


HIDING_PLACES = (
    '[service]\nenvironment.KEY = "hidden"\n',
    'service.environment.KEY = "hidden"\n',
    'service = {environment = {KEY = "hidden"}, user = "x"}\n',
    '[service]\n"environment" = {KEY = "hidden"}\n',
    '[service]\nenvironment.KEY = """\nhidden\n"""\nuser = "kept"\n',
    "[service]\nenvironment = [\n  'KEY=hidden',\n]\n",
    '[service]\nenvironment = {A = """\nhidden1""", B = """\nhidden2"""}\n',
    "[Service]\nEnvironment=A=1 \\\n  KEY=hidden\nUser=kept\n",
    '[service]\n# KEY was "hidden" before, too\ncommand = ["x", "hidden"]\nenvironment = {KEY = "hidden"}\n',
)


@pytest.mark.parametrize("text", HIDING_PLACES)
def test_however_an_environment_is_written_it_does_not_leave(text: str) -> None:
    clean = redact_unit(text)
    assert "hidden" not in clean
    assert ("kept" in text) == ("kept" in clean)


def test_support_makes_an_archive_without_secrets(peer: Peer, tmp_path: Path) -> None:
    units = Path(peer.layout.units)
    units.mkdir(parents=True)
    (units / "web.toml").write_text('[service]\ncommand = "web --password hidden"\nenvironment = {KEY = "hidden"}\n')
    Path(peer.layout.settings_file).write_text('[update]\nrepository = "https://u:hidden@host/"\n')
    (units / "web.toml.d").mkdir()
    (units / "web.toml.d" / "more.toml").write_text('[service]\nenvironment.KEY = "hidden"\numask = "0077"\n')
    peer.says("GET /v1/status", {"units": [{"name": "web", "last_lines": ["it wrote"]}], "secret": "hidden"})
    peer.says("GET /v1/units/web/logs?lines=200", ["a line"])
    target = tmp_path / "bundle.tar.gz"
    done = run("support", "--logs", "--to", str(target), "--root", peer.layout.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        contents = {}
        for member in archive.getmembers():
            file = archive.extractfile(member)
            assert file is not None
            contents[member.name.partition("/")[2]] = file.read().decode()
    assert "hidden" not in "".join(contents.values())
    assert "***" in contents["units/web.toml"]
    assert "0077" in contents["units/web.toml.d/more.toml"]
    assert "a line" in contents["logs/web"]
    assert "it wrote" in contents["api/v1/status"]
    assert json.loads(contents["doctor.json"])
    assert "cannot" in contents["slots/record.txt"]


def test_support_keeps_what_units_wrote_to_itself(peer: Peer, tmp_path: Path) -> None:
    peer.says("GET /v1/status", {"units": [{"name": "web", "last_lines": ["it wrote"]}]})
    done = run("support", "--to", str(tmp_path), "--root", peer.layout.root)
    assert (done.returncode, done.stderr) == (0, "")
    (target,) = tmp_path.glob("appliance-support-*.tar.gz")  # a directory gets a file named by host and time
    with tarfile.open(target) as archive:
        text = b"".join(file.read() for one in archive.getmembers() if (file := archive.extractfile(one)))
    assert b'"name": "web"' in text
    assert b"it wrote" not in text


HOUSE = Path(__file__).parents[2]


def test_doctor_says_when_files_will_not_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "appliance", "doctor", "-o", "json", "--root", str(tmp_path)]
    for limit, state in ((64, "bad"), (600, "warn")):
        done = subprocess.run(
            ["prlimit", f"--nofile={limit}:{limit}", *command], cwd=HOUSE, capture_output=True, text=True, check=False
        )
        found = next(one for one in json.loads(done.stdout)["checks"] if one["name"] == "open files")
        assert found["state"] == state
        assert "raise it to 1024" in found["remedy"]


def test_support_makes_no_directories(tmp_path: Path) -> None:
    done = run("support", "--to", str(tmp_path / "no" / "x.tar.gz"), "--root", str(tmp_path))
    assert done.returncode == 4
    assert "there is no such directory" in done.stderr
    assert not (tmp_path / "no").exists()


def test_support_works_with_the_appliance_down(tmp_path: Path) -> None:
    done = run("support", "--to", str(tmp_path / "x.tar.gz"), "--root", str(tmp_path / "root"), "-o", "json")
    assert json.loads(done.stdout)["file"] == str(tmp_path / "x.tar.gz")


@pytest.mark.parametrize(
    "text",
    [
        '[service]\ncredential_texts = { word = "hunter2xyz" }\n',
        '[service.credential_texts]\nword = "hunter2xyz"\nother = """\nhunter2xyz\n"""\n',
        "[Service]\nExecStart=/bin/a\nSetCredential=word:hunter2xyz\n",
    ],
)
def test_no_credential_leaves_the_host(text: str) -> None:
    assert "hunter2" not in redact_unit(text)
