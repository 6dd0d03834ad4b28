"""Transactions, enablement, editing, waiting, transient units: the commands against a daemon, and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.cli import main
from cli.peer import here
from cli.test_unit import ROOM, UNIT, appliance, node, root, unit_file

__all__ = ["node", "root"]
TEMPLATE = (
    "[unit]\ndescription = 'number %i of %p'\n[service]\n"
    "command = ['/bin/sh', '-c', 'echo I am %n; exec sleep infinity']\nenvironment = { NUMBER = '%i' }\n"
)


def test_a_plan_is_what_happens(node: Path) -> None:
    unit_file(node, "green", "[unit]\nconflicts = ['hello']\n" + UNIT)
    appliance(node, "unit", "disable", "green")
    assert appliance(node, "unit", "reload").returncode == 0
    down = appliance(node, "unit", "plan", "stop", "web")
    assert down.stdout.splitlines() == ["1. stop hello (requires web)", "2. stop web (asked for)"]
    assert appliance(node, "unit", "plan", "nobody").returncode == 4
    over = appliance(node, "unit", "plan", "start", "green")
    assert over.stdout.splitlines() == ["1. stop hello (conflicts with green)", "2. start green (asked for)"]
    assert appliance(node, "unit", "start", "green").returncode == 0
    listed = json.loads(appliance(node, "unit", "list", "-o", "json").stdout)["units"]
    assert {one["name"]: one["state"] for one in listed} == {"green": "ready", "hello": "stopped", "web": "ready"}
    plan = json.loads(appliance(node, "unit", "plan", "restart", "web", "-o", "json").stdout)
    assert [(one["action"], one["unit"]) for one in plan["steps"]] == [("stop", "web"), ("start", "web")]
    assert appliance(node, "unit", "stop", "--no-wait", "green", "web").returncode == 0
    assert appliance(node, "unit", "wait", "web", "--for", "stopped").returncode == 0
    assert appliance(node, "unit", "list", "--state", "ready").stdout == "no such units\n"
    assert "web" in appliance(node, "unit", "list", "w*").stdout
    assert "hello" not in appliance(node, "unit", "list", "w*").stdout


def test_questions_and_verbs_of_systemctl(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*words: str) -> tuple[int, str]:  # in this process: eighteen more would take their time
        code = main(["--root", str(node), "unit", *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    assert ask("is-active", "hello", "nobody") == (0, "active\ninactive\n")
    assert ask("is-active", "-q", "nobody") == (4, "")
    assert ask("is-failed", "hello.service") == (1, "active\n")
    assert ask("is-enabled", "web") == (0, "enabled\n")
    assert ask("is-enabled", "nobody") == (1, "not-found\n")
    assert ask("show", "-p", "ActiveState,Requires", "-p", "Nothing", "hello") == (
        0, "ActiveState=active\nRequires=web.service\nNothing=\n",
    )  # fmt: skip
    pid = int(ask("show", "-P", "MainPID", "hello")[1])
    assert ask("kill", "-s", "SIGKILL", "--kill-whom", "main", "hello")[0] == 0
    assert ask("wait", "hello")[0] == 0
    assert ask("try-restart", "hello")[0] == 0
    assert int(ask("show", "-P", "MainPID", "hello")[1]) not in (0, pid)
    assert ask("clean", "hello")[0] == 7
    assert ask("stop", "hello")[0] == 0
    assert ask("is-active", "hello") == (3, "inactive\n")
    assert ask("clean", "--what", "all", "hello") == (0, "nothing\n")
    assert ask("kill", "hello") == (2, "appliance: cannot send SIGTERM to hello: it has no process\n")
    assert ask("show", "-P", "LoadState", "nobody") == (0, "not-found\n")


def test_instances_come_of_their_template(node: Path) -> None:
    unit_file(node, "work@", TEMPLATE)
    unit_file(node, "all", "[unit]\nwants = ['work@1', 'work@2.service']\n")
    assert appliance(node, "unit", "reload").returncode == 0
    assert appliance(node, "unit", "wait", "work@2").returncode == 0
    status = json.loads(appliance(node, "unit", "status", "work@1", "-o", "json").stdout)
    assert (status["description"], status["enabled"], status["state"]) == ("number 1 of work", "static", "ready")
    assert status["log"][-1]["text"] == "I am work@1"
    assert appliance(node, "unit", "start", "work@7").returncode == 0
    assert appliance(node, "unit", "stop", "work@7").returncode == 0
    assert appliance(node, "unit", "status", "work@7").returncode == 4  # forgotten
    assert appliance(node, "unit", "enable", "--now", "work@9").returncode == 0
    listed = json.loads(appliance(node, "unit", "list", "work@*", "-o", "json").stdout)["units"]
    assert {one["name"]: one["state"] for one in listed} == dict.fromkeys(("work@1", "work@2", "work@9"), "ready")
    assert appliance(node, "unit", "start", "nothing@1").returncode == 4


def test_enable_and_mask_need_no_daemon_and_last(root: Path) -> None:
    unit_file(root, "web", UNIT)
    unit_file(root, "other", UNIT)
    assert appliance(root, "unit", "disable", "web").stdout == "web: disabled\n"
    assert appliance(root, "unit", "mask", "other").returncode == 0
    assert appliance(root, "unit", "disable", "wbe").returncode == 4
    kept = json.loads((root / "var/lib/appliance/units/enablement.json").read_text())
    assert kept == {"version": 1, "enabled": [], "disabled": ["web"], "masked": ["other"]}
    with running(root) as log:
        assert "web: " not in log
        states = {one["name"]: (one["state"], one["enabled"]) for one in units(root)}
        assert states == {"web": ("stopped", "disabled"), "other": ("stopped", "masked")}
        assert appliance(root, "unit", "start", "web").returncode == 0
        masked = appliance(root, "unit", "start", "other")
        assert masked.returncode == 2
        assert "cannot start other: it is masked" in masked.stderr
        assert appliance(root, "unit", "unmask", "other").returncode == 0
        assert appliance(root, "unit", "start", "other").returncode == 0
        assert appliance(root, "unit", "disable", "--now", "web").returncode == 0
    with running(root):
        assert appliance(root, "unit", "wait", "other").returncode == 0
        assert {one["name"]: one["state"] for one in units(root)} == {"web": "stopped", "other": "ready"}


def test_run_passes_output_and_exit_code_on(node: Path) -> None:
    done = appliance(node, "unit", "run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, sorted(done.stdout.split())) == (7, ["err", "out"])
    assert appliance(node, "unit", "run", "--", "true").returncode == 0
    killed = appliance(node, "unit", "run", "--", "sh", "-c", "kill -KILL $$")
    assert killed.returncode == 128 + signal.SIGKILL
    many = appliance(
        node, "unit", "run", "-E", "A=b", "--directory", "/usr", "--", "sh", "-c", "pwd; echo $A; seq 3000"
    )
    assert many.stdout.splitlines() == ["/usr", "b", *map(str, range(1, 3001))]
    bad = appliance(node, "unit", "run", "-p", "service.usr=x", "--", "true")
    assert bad.returncode == 2
    assert "service.usr: unknown key" in bad.stderr
    absent = appliance(node, "unit", "run", "--", "/no/such/program")
    assert absent.returncode != 0
    assert "cannot execute /no/such/program: No such file or directory" in absent.stderr
    name = appliance(node, "unit", "run", "--unit", "bg", "--detach", "--", "sleep", "infinity").stdout.strip()
    assert name == "bg"
    assert next(one for one in units(node) if one["name"] == "bg")["enabled"] == "transient"
    assert appliance(node, "unit", "stop", "bg").returncode == 0
    assert "bg" not in [one["name"] for one in units(node)]


def test_ctrl_c_stops_what_was_run(node: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-u", "-m", "appliance", "--root", str(node), "unit", "run", "--unit", "long", "--",
         "sh", "-c", "echo up; exec sleep infinity"],
        cwd=ROOM, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert reader.stdout is not None
    assert reader.stdout.readline() == "up\n"
    reader.send_signal(signal.SIGINT)
    assert reader.wait(60) == 130
    reader.stdout.close()
    assert "long" not in [one["name"] for one in units(node)]


def test_edit_saves_only_what_is_valid(root: Path, tmp_path: Path) -> None:
    path = unit_file(root, "web", UNIT)
    bad = edit(root, "web", text="[service]\ncomand = 1\n")
    assert bad.returncode == 2
    assert 'did you mean "command"?' in bad.stderr
    assert path.read_text() == UNIT
    good = edit(root, "--drop-in", "web", text="[service]\nuser = 'daemon'\n")
    assert good.returncode == 0, good.stderr
    assert (path.parent / "web.toml.d/override.toml").read_text() == "[service]\nuser = 'daemon'\n"
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/hello/bye/ $1\n")
    editor.chmod(0o755)
    environment = {**os.environ, "EDITOR": str(editor), "VISUAL": ""}
    argv = [sys.executable, "-m", "appliance", "--root", str(root), "unit", "edit", "web"]
    assert subprocess.run(argv, cwd=ROOM, env=environment, stdin=subprocess.DEVNULL, check=False).returncode == 0
    assert path.read_text() == UNIT.replace("hello", "bye")
    no_editor = subprocess.run(
        argv, cwd=ROOM, env={**environment, "EDITOR": ""}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert no_editor.returncode == 2
    assert "this is not a terminal; use --stdin, or set EDITOR" in no_editor.stderr
    assert edit(root, "new", text=UNIT).returncode == 0
    assert edit(root, "--drop-in", "nobody", text="").returncode == 4


def test_wait_says_how_it_ended(node: Path) -> None:
    unit_file(node, "bad", "[service]\ncommand = ['false']\n[restart]\npolicy = 'no'\n")
    appliance(node, "unit", "reload")
    assert appliance(node, "unit", "wait", "bad", "--for", "exit").returncode == 0
    hopeless = appliance(node, "unit", "wait", "bad", "--for", "ready")
    assert hopeless.returncode == 1
    assert "it will not be ready: exited with code 1" in hopeless.stderr
    assert appliance(node, "unit", "wait", "web", "--for", "stopped", "--timeout", "100ms").returncode == 6
    assert appliance(node, "unit", "wait", "nobody").returncode == 4


def test_pictures_of_the_graph(node: Path) -> None:
    assert '"hello" -> "web"' in appliance(node, "unit", "graph").stdout
    picture = appliance(node, "unit", "graph", "--svg", "hello").stdout
    assert picture.startswith("<svg ")
    assert "hello: ready" in picture
    top = json.loads(appliance(node, "unit", "top", "-o", "json").stdout)
    assert set(top["usage"]) == {"hello", "web"}
    assert appliance(node, "unit", "top").stdout.splitlines()[0].split()[:2] == ["UNIT", "CPU"]


def edit(root: Path, *words: str, text: str) -> subprocess.CompletedProcess[str]:
    return here("--root", str(root), "unit", "edit", "--stdin", *words, text=text)


def units(root: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(appliance(root, "unit", "list", "-o", "json").stdout)["units"]
    return found


class running:
    """A daemon; gives what it said until it was up."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> str:
        self.daemon = subprocess.Popen(
            [sys.executable, "-m", "appliance", "--root", str(self.root), "run"],
            cwd=ROOM, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert appliance(self.root, "status", "--wait", "60s").returncode in (0, 3)
        return ""

    def __exit__(self, *_: object) -> None:
        self.daemon.terminate()
        assert self.daemon.wait(60) == 0


def test_the_graph_and_a_conversion_as_data(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*words: str) -> tuple[int, str]:
        code = main(["--root", str(root), "unit", *words, "-o", "json"])
        return code, capsys.readouterr().out

    unit_file(root, "alone", UNIT)
    unit_file(root, "web", UNIT)
    unit_file(root, "hello", "[unit]\nrequires = ['web']\n" + UNIT)
    found = json.loads(ask("graph")[1])["units"]
    ties = {one["name"]: one["requires"] for one in found}
    assert ties["hello"] == ["web"]
    assert {"alone", "web"} <= ties.keys()
    near = json.loads(ask("graph", "web")[1])["units"]
    assert [one["name"] for one in near] == ["hello", "web"]
    assert ask("graph", "nobody")[0] == 4
    file = tmp_path / "old.service"
    file.write_text("[Service]\nExecStart=/bin/sleep 1h\n")
    (made,) = json.loads(ask("convert", str(file))[1])
    assert (made["unit"], made["findings"], "written" in made) == ("old", [], False)
    (made,) = json.loads(ask("convert", "--write", str(file))[1])
    assert Path(made["written"]).read_text() == made["text"]
