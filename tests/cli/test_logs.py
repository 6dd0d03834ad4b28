"""``appliance logs`` and ``appliance unit logs``, with a daemon and with what it left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.peer import here_in_bytes

ROOM = Path(__file__).parents[2]
TALKER = r"""[service]
type = "oneshot"
remain_after_exit = true
command = ['/bin/sh', '-c', '''
echo plain words
echo '{"level":"error","code":503,"at":{"path":"/x"}}'
echo '{"level":"info"}'
echo '<3>it broke'
printf 'raw \377\033[31m bytes\n'
''']
"""
OTHER = "[unit]\nafter = ['talker']\n[service]\ncommand = ['/bin/sh', '-c', 'echo here I am; exec sleep infinity']\n"


def appliance(root: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return here_in_bytes("--root", str(root), *words)


def said(root: Path, *words: str) -> list[str]:
    asked = appliance(root, *words)
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.decode(errors="replace").splitlines()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("logs")
    units = root / "etc/appliance/units"
    units.mkdir(parents=True)
    (units.parent / "appliance.toml").write_text('[status]\nlisten = "off"\n')
    (units / "talker.toml").write_text(TALKER)
    (units / "other.toml").write_text(OTHER)
    daemon = subprocess.Popen(
        [sys.executable, "-m", "appliance", "--root", str(root), "run"], cwd=ROOM, stderr=subprocess.PIPE, text=True
    )
    assert daemon.stderr is not None
    left = {"unit other: ready", " ready; status page"}
    for line in daemon.stderr:
        left = {one for one in left if one not in line}
        if not left:
            break
    appliance(root, "unit", "stop", "other")  # its line is written by now
    try:
        yield root
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.stderr.read()
        daemon.stderr.close()
        assert daemon.wait(120) == 0
        left = said(root, "logs", "talker", "other", "-o", "cat", "--where", "level=error")
        assert left == ['{"level":"error","code":503,"at":{"path":"/x"}}'], "the logs outlive the daemon"
        assert appliance(root, "logs", "none").returncode == 4
        assert appliance(root, "logs", "-f").returncode == 3


def texts(lines: list[str]) -> list[str]:
    return [line.partition(": ")[2] for line in lines]


def test_several_and_all(node: Path) -> None:
    lines = said(node, "unit", "logs", "--all")
    assert {line.split()[1] for line in lines} >= {"talker:", "other:"}
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in lines)
    assert [line[:24] for line in lines] == sorted(line[:24] for line in lines)
    assert texts(said(node, "logs", "talker", "other", "-n", "2")) == [r"raw \xff\x1b[31m bytes", "here I am"]
    assert len(said(node, "unit", "logs", "talker")) == 5
    assert said(node, "unit", "logs", "ta*", "-n", "1")[0].endswith("bytes")
    assert appliance(node, "unit", "logs").returncode == 2
    assert appliance(node, "unit", "logs", "none").returncode == 4


def test_what_is_searched_for(node: Path) -> None:
    def found(*words: str) -> list[str]:
        return said(node, "logs", "talker", "-o", "cat", *words)

    assert found("--grep", "^(plain|it) ") == ["plain words", "it broke"]
    assert found("--grep", "^(plain|it) ", "-n", "1") == ["it broke"]
    assert found("--grep", "PLAIN", "-i") == ["plain words"]
    assert found("--grep", "level|raw", "-v") == ["plain words", "it broke"]
    assert found("--where", "code>=500", "--where", "at.path=/x")[0].startswith('{"level":"error"')
    assert found("--priority", "err") == ["it broke"]
    assert found("--since", "1h ago", "--until", "now") == found()
    assert found("--since", "tomorrow") == found("--until", "yesterday") == []
    for wrong in (("--grep", "("), ("--since", "soon"), ("--where", "x"), ("--priority", "loud"), ("-n", "many")):
        asked = appliance(node, "logs", *wrong)
        assert (asked.returncode, asked.stderr[:17]) == (2, b"appliance: cannot"), asked


def test_how_lines_are_shown(node: Path) -> None:
    raw = appliance(node, "unit", "logs", "talker", "-n", "1", "-o", "cat")
    assert raw.stdout == b"raw \xff\033[31m bytes\n"
    lines = [json.loads(line) for line in said(node, "unit", "logs", "talker", "-o", "json")]
    assert lines[1]["fields"] == {"level": "error", "code": 503, "at": {"path": "/x"}}
    assert (lines[3]["priority"], lines[3]["text"], lines[3]["unit"]) == (3, "it broke", "talker")
    assert re.match(r"[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\.\d{3} plain words", said(node, "logs", "talker", "-oshort")[0])
    assert appliance(node, "status", "-o", "cat").returncode == 2


def test_starts_and_streams(node: Path) -> None:
    (last,) = [json.loads(line) for line in said(node, "logs", "other", "-n", "1", "-o", "json")]
    assert re.fullmatch("[0-9a-f]{32}", last["invocation"])
    for word in ("0", last["invocation"], last["invocation"][:8]):
        assert texts(said(node, "unit", "logs", "other", "--invocation", word, "-n", "1")) == texts(
            said(node, "unit", "logs", "other", "-n", "1")
        )
    assert said(node, "unit", "logs", "other", "--invocation", "ffffffff") == []
    assert said(node, "unit", "logs", "other", "--stream", "stderr") == [], "its two are one"
    (fields,) = [json.loads(line) for line in said(node, "logs", "talker", "-o", "journal", "--grep", "broke")]
    assert fields["MESSAGE"] == "it broke"
    assert (fields["PRIORITY"], fields["_SYSTEMD_UNIT"]) == ("3", "talker.service")
    assert len(fields["__REALTIME_TIMESTAMP"]) == 16
    assert fields["_SYSTEMD_INVOCATION_ID"] != last["invocation"]


def test_following_with_a_regular_expression(node: Path) -> None:
    words = [sys.executable, "-m", "appliance", "--root", str(node), "logs", "-f", "-n", "1", "--grep", "here|plain"]
    with subprocess.Popen(words, cwd=ROOM, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().endswith("other: here I am\n")
        appliance(node, "unit", "start", "other")
        assert reader.stdout.readline().endswith("other: here I am\n")
        reader.send_signal(signal.SIGINT)
        assert reader.wait(60) == 0
    appliance(node, "unit", "stop", "other")


def test_the_kernel_is_a_unit_of_its_own(node: Path) -> None:
    if not os.access("/dev/kmsg", os.R_OK):
        pytest.skip("/dev/kmsg cannot be read")
    asked = appliance(node, "unit", "logs", "kernel", "-n", "1", "-o", "json")
    assert asked.returncode == 0
    assert all(json.loads(line)["unit"] == "kernel" for line in asked.stdout.splitlines())
