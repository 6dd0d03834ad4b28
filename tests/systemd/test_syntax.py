"""The syntax of systemd's unit files: lines, words, values; systemd itself is the measure where it can be asked."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import InputError
from appliance.schema import Source
from appliance.systemd import convert, drop_in_directories, kind_of
from appliance.systemd.command_lines import read_commands
from appliance.systemd.lines import read_lines
from appliance.systemd.values import boolean, limit, seconds, size, size_word
from appliance.systemd.words import split_words

SECTIONS = frozenset({"Unit", "Service"})
LINES = {  # text -> (section, key, value, line) of each assignment
    "[Unit]\nA=1\n": [("Unit", "A", "1", 2)],
    "[Unit]\n A = 1 \nB=": [("Unit", "A", "1", 2), ("Unit", "B", "", 3)],
    "[Unit]\n# A=1\n; B=2\n  # C=3\nD=4": [("Unit", "D", "4", 5)],
    "[Unit]\nA=1 # no comment": [("Unit", "A", "1 # no comment", 2)],
    "[Unit]\nA=one\\\n  two\\\nthree\nB=2": [("Unit", "A", "one   two three", 2), ("Unit", "B", "2", 5)],
    "[Unit]\nA=one\\\n# a comment\n; another\ntwo\nB=2": [("Unit", "A", "one two", 2), ("Unit", "B", "2", 6)],
    "[Unit]\nA=one\\\n\nB=2": [("Unit", "A", "one", 2), ("Unit", "B", "2", 4)],
    "[Unit]\nA=one\\\\\nB=2": [("Unit", "A", "one\\\\", 2), ("Unit", "B", "2", 3)],
    "[Unit]\nA=one\\": [("Unit", "A", "one", 2)],
    "\ufeff[Unit]\r\nA=1\\\r\n2\r\n": [("Unit", "A", "1 2", 2)],
    "[Unit]\nA=b=c": [("Unit", "A", "b=c", 2)],
    "[Unit]\nA=1\n[Service]\nA=2\n[Unit]\nA=3": [
        ("Unit", "A", "1", 2),
        ("Service", "A", "2", 4),
        ("Unit", "A", "3", 6),
    ],
    "A=0\n[X-Mine]\nA=1\n[Odd]\nA=2\n[Unit]\nnothing\nA=3": [("Unit", "A", "3", 8)],
}


@pytest.mark.parametrize("text", LINES)
def test_lines(text: str) -> None:
    found = read_lines(text, "x.service", SECTIONS)
    assert [(one.section, one.key, one.value, one.line) for one in found.assignments] == LINES[text]


def test_what_is_no_assignment_is_said_with_its_place() -> None:
    text = "A=0\n[X-Mine]\nA=1\n[Odd]\nA=2\n[Unit]\n  nothing\nA=3\n[broken\nA=4"
    assert [str(one) for one in read_lines(text, "x.service", SECTIONS).findings] == [
        'x.service:1:1: warning: found "A=0" outside of any section, ignored',
        "x.service:4:1: warning: [Odd]: unknown section, ignored with all in it (known here: Service, Unit)",
        'x.service:7:3: warning: [Unit]: found "nothing", which has no =; ignored',
        'x.service:9:1: found "[broken", expected a section such as [Service]',
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("a'b c'd", ["ab cd"]),
        (r"a\x20b \x41 \u00e4 \101 \s", ["a b", "A", "ä", "A", " "]),
        (r'"\n\t\\"', ["\n\t\\"]),
        (r"'\''", ["'"]),
        ('""', [""]),
        (r"\q", [r"\q"]),
        (r"\x00 \000", [r"\x00", r"\000"]),
        (r"\xc3\xa4", ["ä"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_quote_that_is_not_closed() -> None:
    with pytest.raises(InputError, match="not closed"):
        split_words("a 'b")


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("/bin/a b", [{"command": ["/bin/a", "b"]}]),
        ("a $B", [{"command": ["a", "$B"], "expand": True}]),
        (":a $B", [{"command": ["a", "$B"]}]),
        ("-/bin/a", [{"command": ["/bin/a"], "ignore_failure": True}]),
        ("-+/bin/a", [{"command": ["/bin/a"], "ignore_failure": True, "privileged": True}]),
        ("!/bin/a", [{"command": ["/bin/a"], "as_root": True}]),
        ("!!/bin/a", [{"command": ["/bin/a"]}]),
        ("@/bin/a other b", [{"command": ["/bin/a", "b"], "argv0": "other"}]),
        ("-@/bin/a other", [{"command": ["/bin/a"], "argv0": "other", "ignore_failure": True}]),
        ("/bin/a b ; /bin/c ;", [{"command": ["/bin/a", "b"]}, {"command": ["/bin/c"]}]),
        (r"/bin/a b \; c", [{"command": ["/bin/a", "b", ";", "c"]}]),
        ("/bin/a 'b;' \";\" ;", [{"command": ["/bin/a", "b;", ";"]}]),
        ("/bin/a b;c", [{"command": ["/bin/a", "b;c"]}]),
        ("'/bin/with blank' x", [{"command": ["/bin/with blank", "x"]}]),
        ("-relative/path ; /bin/a", [{"command": ["/bin/a"]}]),
    ],
)
def test_commands(text: str, commands: list[dict[str, object]]) -> None:
    assert [line.table() for line in read_commands(text)[0]] == commands


@pytest.mark.parametrize("text", ["relative/path", "-", "/bin/", "@/bin/a", "/bin/a 'b", "+!/bin/a"])
def test_commands_that_are_none(text: str) -> None:
    if text == "-":
        assert read_commands(text) == (
            [],
            ["found an empty program name, expected a path or a name to look up in PATH; ignored"],
        )
    else:
        with pytest.raises(InputError):
            read_commands(text)


SPANS = [
    "1", "90", "5min 20s", "1h30min", "2.5 h", "1y", "3 M", "100ms", "1us", "2w 3d", "1 2", "0", ".5 s", "5 parsecs",
    "10 minutes", "1month", "-5", "1e3", "infinity", "1day 2 hours", "0.25sec", "1msec 3usec",
    "5.", "5. min", "+5s", "12.34.56", ".5", "55.h",
]  # fmt: skip


def test_time_spans_are_those_of_systemd() -> None:
    """systemd-analyze prints what it reads, in microseconds."""
    assert shutil.which("systemd-analyze") is not None
    for text in SPANS:
        asked = subprocess.run(["systemd-analyze", "timespan", "--", text], capture_output=True, text=True, check=False)
        theirs = [line.partition(":")[2].strip() for line in asked.stdout.splitlines() if "s:" in line]
        try:
            ours = seconds(text)
        except InputError:
            assert asked.returncode, text
            continue
        if text == "infinity":
            assert ours == float("inf")
        else:
            assert theirs[0] == str(round(ours * 1e6)), (text, asked.stdout)


def test_other_values() -> None:
    assert [boolean(one) for one in ("yes", "TRUE", "On", "1", "y", "t")] == [True] * 6
    assert [boolean(one) for one in ("no", "false", "OFF", "0", "n", "f")] == [False] * 6
    assert [size("1K"), size("1.5G"), size("10M", 1000), size("2G 3M"), size("7B")] == [
        1024, 3 << 29, 10_000_000, (2 << 30) + (3 << 20), 7,
    ]  # fmt: skip
    assert [size_word("infinity"), size_word("20%"), size_word("512M")] == ["infinity", "20%", "512M"]
    assert limit("nofile", "1024:4096") == "1024:4096"
    assert limit("core", "1M:infinity") == f"{1 << 20}:infinity"
    assert limit("cpu", "2min") == "2m"
    for wrong in ("", "1Z", "M", "-1", "1 %"):
        with pytest.raises(InputError):
            size_word(wrong)


def test_where_drop_ins_lie() -> None:
    assert drop_in_directories("foo-bar-baz.service") == (
        "service.d", "foo-.service.d", "foo-bar-.service.d", "foo-bar-baz.service.d",
    )  # fmt: skip
    assert drop_in_directories("a@b.timer") == ("timer.d", "a@.timer.d", "a@b.timer.d")
    assert [kind_of(one) for one in ("a.service", ".service", ".a.service", "a.mount", "a@.socket")] == [
        ".service", "", "", "", ".socket",
    ]  # fmt: skip


_KEYS = st.sampled_from(
    [
        "ExecStart",
        "ExecReload",
        "Environment",
        "User",
        "Type",
        "Restart",
        "RestartSec",
        "LimitNOFILE",
        "LimitCPU",
        "SystemCallFilter",
        "Nice",
        "UMask",
        "CapabilityBoundingSet",
        "RestrictNamespaces",
        "ReadWritePaths",
        "MemoryMax",
        "CPUAffinity",
        "IOReadBandwidthMax",
        "Delegate",
        "StandardOutput",
        "SuccessExitStatus",
        "TimeoutSec",
        "RuntimeDirectory",
        "PIDFile",
        "After",
        "WantedBy",
        "Alias",
        "OnCalendar",
        "ListenStream",
        "Accept",
        "PathExists",
        "ConditionMemory",
        "Unit",
        "Service",
        "StartLimitBurst",
        "AssertPathExists",
        "X-Y",
        "Nonsense",
    ]
)
_VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "~", "%i", "%", "%Z", "yes", "infinity", "5min", "1G", "/bin/true", "-/x", "~@clock", "1:2"]),
    st.lists(
        st.sampled_from(
            [
                "/bin/true",
                "-",
                ";",
                "\\;",
                "'a",
                "b'",
                '"',
                "$A",
                "${B}",
                "%n",
                "%%",
                "CAP_CHOWN",
                "~x",
                "\\x41",
                "\\",
                "!a",
                "@b",
                ":c",
            ]
        ),
        max_size=6,
    ).map(" ".join),
)
_FILES = st.lists(
    st.one_of(
        st.sampled_from(["[Unit]", "[Service]", "[Install]", "[Timer]", "[Socket]", "[Path]", "[X]", "[", "# x", ""]),
        st.tuples(_KEYS, _VALUES).map("=".join),
        st.text(max_size=20),
    ),
    max_size=25,
).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(_FILES, st.sampled_from([".service", ".timer", ".socket", ".path", ".target"]))
def test_nothing_crashes_the_parser(text: str, kind: str) -> None:
    converted = convert([Source(f"/u/x{kind}", text), Source(f"/u/x{kind}.d/a.conf", text)], kind)
    assert isinstance(converted.toml(), str)
