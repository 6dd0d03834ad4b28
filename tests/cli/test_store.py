"""appliance store: against a real daemon, and on files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from app.daemon import SETTINGS, Daemon

from cli.peer import command, here


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("node")
    (root / "etc/appliance").mkdir(parents=True)
    (root / "etc/appliance/appliance.toml").write_text(SETTINGS)
    one = Daemon(command(), root)
    one.expect_ready()
    one.expect_service("store", "ready")
    yield one
    one.clean_up()


def store(daemon: Daemon, *words: str, code: int = 0) -> str:
    done = here("--root", daemon.layout.root, "store", *words)
    assert (done.returncode, done.stderr) == (code, ""), done
    return str(done.stdout)


def test_put_get_del(daemon: Daemon) -> None:
    assert store(daemon, "put", "a", "1").startswith("revision ")
    assert store(daemon, "put", "a", "2", "--prev").splitlines()[1] == "1"
    store(daemon, "put", "ab", "x")
    assert store(daemon, "get", "a") == "a\n2\n"
    assert store(daemon, "get", "--prefix", "a", "--keys-only") == "a\nab\n"
    assert store(daemon, "get", "a", "b", "--limit", "1", "--value-only") == "2"
    assert store(daemon, "get", "--prefix", "a", "--count") == "2\n"
    first = json.loads(store(daemon, "get", "a", "-o", "json"))["kvs"][0]
    assert store(daemon, "get", "a", "--rev", str(first["create_revision"])) == "a\n1\n"
    assert store(daemon, "del", "--prefix", "a", "--prev") == "2\na\n2\nab\nx\n"
    assert store(daemon, "get", "a", code=4) == ""
    done = here("--root", daemon.layout.root, "store", "get", "a", "--rev", "99999999")
    assert (done.returncode, "cannot read at revision 99999999" in done.stderr) == (2, True)


def test_watch_from_a_revision_prints_history(daemon: Daemon) -> None:
    revision = int(store(daemon, "put", "w", "1").split()[1])
    store(daemon, "put", "w", "2")
    store(daemon, "del", "w")
    words = command("--root", daemon.layout.root, "store", "watch", "w", "--rev", str(revision))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline().rstrip() for _ in range(9)]
        watching.terminate()
    assert [line for line in lines if line] == [
        f"PUT (revision {revision})", "w", "1", f"PUT (revision {revision + 1})", "w", "2",
        f"DELETE (revision {revision + 2})", "w",
    ]  # fmt: skip


def test_backup_check_restore(daemon: Daemon, tmp_path: Path) -> None:
    store(daemon, "put", "kept", "for ever")
    file = str(tmp_path / "b")
    assert "proved" in store(daemon, "backup", file)
    assert "whole" in here("store", "check", file).stdout
    refused = here("--root", daemon.layout.root, "store", "restore", file)
    assert (refused.returncode, "holds it" in refused.stderr) == (7, True)
    other = str(tmp_path / "other")
    assert "restored to revision" in here("--root", other, "store", "restore", file).stdout
    checked = here("--root", other, "store", "check")
    assert (checked.returncode, "every checksum holds" in checked.stdout) == (0, True)
    again = here("--root", other, "store", "restore", file)
    assert (again.returncode, "there is a store in" in again.stderr) == (2, True)
    assert here("--root", other, "store", "restore", file, "--replace").returncode == 0
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-3])
    cut = here("--root", other, "store", "restore", file, "--replace")
    assert (cut.returncode, "cut off" in cut.stderr) == (1, True)
    assert here("--root", other, "store", "check").returncode == 0


def test_status_and_compact(daemon: Daemon) -> None:
    revision = int(store(daemon, "put", "s", "1").split()[1])
    assert "state" in store(daemon, "status")
    store(daemon, "compact", str(revision))
    answer = json.loads(store(daemon, "status", "-o", "json"))
    assert (answer["state"], answer["compacted_revision"]) == ("open", revision)


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    done = here("--root", str(tmp_path), "store", "get")
    assert (done.returncode, "KEY is missing" in done.stderr) == (2, True)


def test_each_verb_answers_in_json(daemon: Daemon, tmp_path: Path) -> None:
    revision = json.loads(store(daemon, "put", "j", "1", "-o", "json"))["revision"]
    assert json.loads(store(daemon, "compact", str(revision), "-o", "json")) == {"revision": revision}
    file = str(tmp_path / "b")
    done = json.loads(store(daemon, "backup", file, "-o", "json"))
    assert (done["file"], done["bytes"]) == (file, (tmp_path / "b").stat().st_size)
    assert json.loads(here("store", "check", file, "-o", "json").stdout)["revision"] == done["revision"]
    other = str(tmp_path / "other")
    restored = json.loads(here("--root", other, "store", "restore", file, "-o", "json").stdout)
    assert restored == {"revision": done["revision"], "store": f"{other}/var/lib/appliance/store"}


def test_what_is_not_there_has_no_checksums(tmp_path: Path) -> None:
    done = here("--root", str(tmp_path), "store", "check")
    assert (done.returncode, "there is no store" in done.stderr) == (4, True)
    assert not list(tmp_path.iterdir())


def txn(daemon: Daemon, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return here("--root", daemon.layout.root, "store", "txn", *words, text=text)


def test_transactions(daemon: Daemon) -> None:
    take = 'version("lock") = "0"\n\nput lock "its owner"\nget lock\n\nget lock\ndel --prefix lock --prev\n'
    first = txn(daemon, take)
    assert (first.returncode, first.stdout.splitlines()[::2]) == (0, ["done", "lock"])
    again = txn(daemon, take)
    assert (again.returncode, again.stderr) == (7, "")
    assert again.stdout == "a comparison does not hold\nlock\nits owner\n1\nlock\nits owner\n"
    assert store(daemon, "get", "lock", code=4) == ""
    answer = json.loads(txn(daemon, "\nput a b\n", "-o", "json").stdout)
    assert (answer["succeeded"], len(answer["responses"])) == (True, 1)
    held = txn(daemon, f'value("a") = "b"\nmod("a") = "{answer["revision"]}"\ncreate("a") > "0"\n\nget a --count\n')
    assert held.stdout == "done\n1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing came on standard input"),
        ("version(a) ? 1\n", "line 1 of the transaction"),
        ('vision("a") = "1"\n', "expected one of version"),
        ('mod("a") = "x"\n', 'found "x", expected a whole number'),
        ("\nput a\n", "line 2 of the transaction: put needs a value here"),
        ("\n\nputt a b\n", 'line 3 of the transaction: found "putt"'),
        ("\nget\n", "KEY is missing"),
        ('\nput a "b\n', "line 2 of the transaction: No closing quotation"),
        ("\nget a --order\n", "unrecognized arguments: --order"),
    ],
)
def test_a_transaction_that_cannot_be_read_names_its_line(daemon: Daemon, text: str, said: str) -> None:
    done = txn(daemon, text)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_leases(daemon: Daemon) -> None:
    lease = json.loads(store(daemon, "lease", "grant", "5m", "-o", "json"))
    assert lease["ttl_seconds"] == 300
    store(daemon, "put", "leased", "x", "--lease", lease["id"])
    assert lease["id"] in store(daemon, "lease", "list").split()
    shown = store(daemon, "lease", "timetolive", "--keys", lease["id"]).splitlines()
    assert (shown[0].endswith("of 300"), shown[1:]) == (True, ["leased"])
    assert store(daemon, "lease", "keep-alive", "--once", lease["id"]) == f"{lease['id']} for 300 s\n"
    held = txn(daemon, f'lease("leased") = "{lease["id"]}"\n\nget leased --value-only\n')
    assert held.stdout == "done\nx"
    assert store(daemon, "lease", "revoke", lease["id"]) == f"{lease['id']} revoked\n"
    assert store(daemon, "get", "leased", code=4) == ""
    for words in (("revoke", lease["id"]), ("timetolive", lease["id"]), ("keep-alive", lease["id"])):
        done = here("--root", daemon.layout.root, "store", "lease", *words)
        assert (done.returncode, done.stdout) == (4, ""), done
    for words in (("grant", "0"), ("grant", "-1"), ("revoke", "zz"), ("put", "a", "b", "--lease", "-1")):
        done = here("--root", daemon.layout.root, "store", *(("lease", *words) if words[0] != "put" else words))
        assert done.returncode == 2, done
