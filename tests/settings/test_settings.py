"""appliance.toml: every mistake in its words, fragments, and never half of a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance import settings
from appliance.errors import InputError
from appliance.host import node
from appliance.host.layout import Layout
from appliance.schema import to_toml
from appliance.units import parse_unit

CONFIGS = Path(__file__).parents[2] / "configs"
OFFERS = 'write "127.0.0.1:7780", "[::1]:7780" or "localhost:7780", or "off"'


TABLES = "(allowed: machine, network, node, status, store, units, update)"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[nod]", f'1:2: nod: unknown key; did you mean "node"? {TABLES}'),
        ('name = "x"', f"1:1: name: unknown key; it belongs to [node] {TABLES}"),
        ('[node]\nnmae = "x"', '2:1: node.nmae: unknown key; did you mean "name"? (allowed: labels, name)'),
        (
            '[node]\nname = "-x"',
            '2:1: node.name: found "-x", expected a name of letters, digits, ".", "_", "-", at most 63 long',
        ),
        (
            "[node]\nname = 7",
            '2:1: node.name: found the integer 7, expected a name of letters, digits, ".", "_", "-", at most 63 long',
        ),
        ('[node]\nlabels = "ssd"', '2:1: node.labels: found the string "ssd", expected a table such as {disk = "ssd"}'),
        ("[node]\nlabels = {disk = 1}", "2:11: node.labels.disk: found the integer 1, expected a string"),
        (
            '[status]\nlisten = "7780"',
            f'2:1: status.listen: cannot listen on "7780": it has no port; {OFFERS}',
        ),
        (
            '[status]\nlisten = "127.0.0.1:99999"',
            f'2:1: status.listen: cannot listen on "127.0.0.1:99999": "99999" is no port between 0 and 65535; {OFFERS}',
        ),
        (
            '[status]\nlisten = "node1:80"',
            f'2:1: status.listen: cannot listen on "node1:80": "node1" is no IP address; {OFFERS}',
        ),
        (
            '[status]\nlisten = "0.0.0.0:7780"',
            '2:1: status.listen: found "0.0.0.0:7780", which others can reach: set token_file, a file with a secret',
        ),
        ('[status]\ntoken_file = "secret"', '2:1: status.token_file: found "secret", expected an absolute path'),
        (
            '[status]\nhosts = ["a b"]',
            '2:10: status.hosts[0]: found "a b", expected a host name such as "node1.example"',
        ),
        ('[store]\nmode = "etcd"', '2:1: store.mode: found "etcd", expected "embedded" or "external"'),
        (
            '[store]\nmode = "external"',
            '1:2: store.external.endpoints: is missing: mode = "external" needs the URLs of an etcd',
        ),
        (
            '[update]\nchannel = "stabel"',
            '2:1: update.channel: found "stabel", expected "alpha", "beta" or "stable"; did you mean "stable"?',
        ),
        (
            "[update]\ninterval = 600",
            '2:1: update.interval: found the integer 600, expected a duration such as "10m" (a string with a unit)',
        ),
        (
            '[update]\ninterval = "10 minutes"',
            '2:1: update.interval: found "10 minutes", expected a duration such as "10m"',
        ),
        ('[update]\ninterval = "1ms"', "2:1: update.interval: found 1ms, expected at least 1s"),
        (
            "[update]\nstrategy = true",
            '2:1: update.strategy: found the boolean true, expected "immediate", "window", "lock" or "manual"',
        ),
        ("update = 3", "1:1: update: found the integer 3, expected a table"),
        ("[[update]]", "1:3: update: found a list of 1, expected a table"),
        (
            "[update.health]\ntries = 0",
            "2:1: update.health.tries: found the integer 0, expected at least 1 and at most 9",
        ),
        (
            '[update.health]\nsettle = "1h"',
            "2:1: update.health.settle: must be shorter than deadline",
        ),
        (
            '[[update.health.check]]\nhttp = "x"\n',
            "2:1: update.health.check[0].http",
        ),
        (
            "[[update.health.check]]\n",
            "1:17: update.health.check[0]: must hold exactly one of http, tcp, command; it holds none",
        ),
        (
            "[update.health]\ncheck = {}",
            "2:1: update.health.check: found a table, expected a list of tables",
        ),
        (
            '[units]\nlog_limit = "16 megabytes"',
            '2:1: units.log_limit: found "16 megabytes", expected a size such as "512M"',
        ),
        ("[units]\nlog_limit = -1", '2:1: units.log_limit: found the integer -1, expected a size such as "256M"'),
        ("[node\n", "1:6: not TOML: expected ']' at the end of a table declaration"),
        ("[node]\n[node]", "2:6: not TOML: cannot declare ('node',) twice"),
        ("[node]\nname: x", "2:5: not TOML: expected '=' after a key in a key/value pair"),
        ("[node]\nname = localhost", '2:8: not TOML: invalid value; a string needs quotes: "localhost"'),
    ],
)
def test_one_finding(text: str, finding: str, tmp_path: Path) -> None:
    layout = layout_with(tmp_path, text)
    loaded = settings.load(layout)
    told = [str(one) for one in loaded.findings]
    if finding.endswith(".http"):  # its words belong to the update room
        assert told[0].startswith(f"{layout.settings_file}:{finding}: ")
    else:
        assert told == [f"{layout.settings_file}:{finding}"]
    assert loaded.value is None


def layout_with(tmp_path: Path, text: str, **fragments: str) -> Layout:
    layout = Layout(str(tmp_path))
    directory = Path(layout.settings_fragments)
    directory.mkdir(parents=True)
    Path(layout.settings_file).write_text(text)
    for name, inner in fragments.items():
        (directory / f"{name}.toml").write_text(inner)
    return layout


def test_nothing_at_all_is_a_working_node(tmp_path: Path) -> None:
    loaded = settings.load(Layout(str(tmp_path)))
    assert (loaded.findings, loaded.files, loaded.problem) == ((), (), "")
    value = loaded.require()
    assert value.node.name == node.hostname()
    assert value.status.listen == "127.0.0.1:7780"
    assert value.update.repository == ""


def test_fragments_merge_in_the_order_of_their_names(tmp_path: Path) -> None:
    layout = layout_with(
        tmp_path,
        '[node]\nname = "base"\nlabels = {disk = "ssd"}\n[status]\nhosts = ["a"]',
        **{"20-b": '[node]\nname = "b"', "10-a": '[node]\nname = "a"\nlabels.rack = "7"\n[status]\nhosts = ["b"]'},
    )
    loaded = settings.load(layout)
    value = loaded.require()
    assert value.node.name == "b"
    assert value.node.labels == {"disk": "ssd", "rack": "7"}
    assert value.status.hosts == ("b",)
    assert [Path(one).name for one in loaded.files] == ["appliance.toml", "10-a.toml", "20-b.toml"]


def test_a_finding_names_the_fragment(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, '[node]\nname = "x"', **{"10-a": '\n[status]\nlisten = "off"\nlisen = "off"'})
    (finding,) = settings.load(layout).findings
    assert str(finding) == (
        f"{layout.settings_fragments}/10-a.toml:4:1: status.lisen: unknown key; "
        'did you mean "listen"? (allowed: hosts, listen, token_file)'
    )


def test_every_file_with_a_fault_is_told_and_nothing_is_applied(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "[node]\nname = 1", **{"10-a": "x =", "20-b": '[store]\nmode = "x"'})
    loaded = settings.load(layout)
    assert loaded.value is None
    assert [(Path(one.file).name, one.line) for one in loaded.findings] == [
        ("appliance.toml", 2), ("10-a.toml", 1), ("20-b.toml", 2),
    ]  # fmt: skip
    assert loaded.problem.endswith("(and 2 more)")
    with pytest.raises(InputError) as caught:
        loaded.require()
    assert caught.value.message.splitlines()[0] == "cannot use the settings:"
    assert len(caught.value.message.splitlines()) == 4
    assert caught.value.where == f"{layout.settings_file}:2:1"


def test_masked_hidden_and_foreign_files_are_left_out(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "", **{"10-a": '[node]\nname = "a"'})
    directory = Path(layout.settings_fragments)
    (directory / "20-masked.toml").symlink_to("/dev/null")
    (directory / ".30-editor.toml").write_text("garbage")
    (directory / "README").write_text("garbage")
    (directory / "40.toml~").write_text("garbage")
    loaded = settings.load(layout)
    assert loaded.require().node.name == "a"
    assert [Path(one).name for one in loaded.files] == ["appliance.toml", "10-a.toml"]


def test_files_that_cannot_be_read_are_findings(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "", **{"10-good": '[node]\nname = "a"'})
    directory = Path(layout.settings_fragments)
    (directory / "20-bytes.toml").write_bytes(b"[node]\nname = '\xff'")
    (directory / "30-directory.toml").mkdir()
    (directory / "40-gone.toml").symlink_to("nowhere")
    (directory / "50-long.toml").write_bytes(b"#" * (settings.SIZE_MAX + 1))
    loaded = settings.load(layout)
    assert loaded.value is None
    assert [one.message.rpartition(": ")[2] for one in loaded.findings] == [
        "byte 15 (line 2) is not UTF-8", "Is a directory", "No such file or directory",
        "it is larger than 1048576 bytes",
    ]  # fmt: skip


def test_a_file_named_by_hand_is_read_alone(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, '[node]\nname = "installed"', **{"10-a": '[node]\nname = "fragment"'})
    other = tmp_path / "other.toml"
    other.write_text('[node]\nname = "other"')
    assert settings.load(layout, str(other)).require().node.name == "other"
    missing = settings.load(layout, str(tmp_path / "missing.toml"))
    assert missing.value is None
    assert missing.problem.endswith("missing.toml: No such file or directory")


def test_a_relative_units_directory_counts_from_the_file_that_says_it(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "", **{"10-a": '[units]\ndirectory = "../my-units"'})
    assert settings.load(layout).require().units.directory == f"{tmp_path}/etc/appliance/my-units"


def test_the_document_keeps_no_password_and_can_be_read_again(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, '[update]\nrepository = "https://me:pass@host.example/a@b"')
    document = settings.as_document(settings.load(layout).require())
    assert document["update"]["repository"] == "https://***@host.example/a@b"
    assert settings.check(to_toml(document), "x") == ()


@pytest.mark.parametrize("name", ["appliance.toml", "demo.toml"])
def test_our_own_files_are_good(name: str) -> None:
    assert settings.check((CONFIGS / name).read_text(), name) == ()


def test_the_example_tells_the_truth_about_every_setting_and_default() -> None:
    text = (CONFIGS / "appliance.toml").read_text()
    everything = re.sub(r"(?m)^#(?=[\w.]+ = |\[\[)", "", text)
    assert settings.check(everything, "x") == ()
    defaults = "\n".join(
        line for line in everything.split("\n") if "for example" not in line or line.startswith("#")
    ).split("# Checks of your own")[0]
    as_written = settings.as_document(_value(defaults))
    assert as_written.pop("units")["directory"] == "/etc/appliance/units"
    assert as_written == {name: one for name, one in settings.as_document(_value("")).items() if name != "units"}
    told = set(re.findall(r"(?m)^#?([a-z_]+) = ", text))
    for section, keys in settings.as_document(_value(everything)).items():
        assert f"[{section}]" in text
        assert set(keys) - {"health", "check", "external", "lock", "window", "bundle", "mirror", "interface"} <= told


def _value(text: str) -> settings.Settings:
    from appliance.schema import raise_if_bad, read

    return raise_if_bad(read(text, "x", settings.Settings))


@pytest.mark.parametrize("path", sorted((CONFIGS / "demo").glob("*.toml")), ids=lambda path: path.stem)
def test_units_of_the_demo_are_good(path: Path) -> None:
    assert parse_unit(path.read_text(), str(path)).findings == ()
