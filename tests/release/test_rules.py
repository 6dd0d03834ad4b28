"""The rules of channels as a publisher sets them, by the command line, and as hosts then read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from appliance.host import clock
from appliance.host.slots import architecture
from appliance.release import KeyRing, create, publish
from appliance.update import Policy, Repository, Wave, choose
from tests.release.test_release import add, binary, served

DAY = 86400.0
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def repository(tmp_path: Path) -> str:
    directory = str(tmp_path / "repository")
    ring = KeyRing(str(tmp_path / "keys"))
    publish(directory, ring, fresh=create(directory, ring, root_keys=1, threshold=1))
    for version in ("1.0", "1.1", "2.0"):
        add(directory, binary(tmp_path, version))
    publish(directory, ring)
    return directory


@pytest.fixture
def run(repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """One verb on the repository, its answer as JSON; ``code`` is what it must end with."""

    def act(verb: str, *words: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        before = served(repository)
        found = main(["release", verb, repository, *words, "--keys", str(tmp_path / "keys"), "-o", "json"])
        out, err = capsys.readouterr()
        assert found == code, err
        if code or "--dry-run" in words:
            assert served(repository) == before
        return {"error": err} if code else json.loads(out)

    return act


def seen(repository: str, tmp_path: Path, channel: str = "alpha") -> tuple[dict[str, Any], Policy]:
    """The offers by version, and the channel's rules, as a new host reads them."""
    host = Repository(
        repository=repository, trust_root=Path(repository, "metadata/1.root.json").read_bytes(),
        directory=str(tmp_path / f"host-{len(list(tmp_path.iterdir()))}"),
    )  # fmt: skip
    host.refresh()
    offers = {offer.version: offer for offer in host.offers(channel, architecture())}
    return offers, host.policy(channel)


def taken(repository: str, tmp_path: Path, running: str, **options: Any) -> tuple[str, str]:
    offers, policy = seen(repository, tmp_path)
    choice = choose(offers.values(), running=running, denied=(), channel="alpha", policy=policy, **options)
    return (choice.offer.version if choice.offer else ""), choice.reason


def test_pause_and_resume(run: Run, repository: str, tmp_path: Path) -> None:
    run("pause", "alpha", "2.0", "--why", "fans stop")
    assert taken(repository, tmp_path, "1.0") == ("1.1", "2.0 is paused: fans stop")
    run("pause", "alpha", "--dry-run")
    run("pause", "alpha", "--why", "holidays")
    assert taken(repository, tmp_path, "1.0")[0] == ""
    run("resume", "alpha")
    run("resume", "alpha", "2.0")
    assert taken(repository, tmp_path, "1.0") == ("2.0", "")
    assert "it is not paused" in run("resume", "alpha", code=7)["error"]
    assert "it is not paused" in run("resume", "alpha", "2.0", code=7)["error"]
    assert "holds no such release" in run("pause", "alpha", "9.0", code=4)["error"]


def test_waves(run: Run, repository: str, tmp_path: Path) -> None:
    now = clock.wall_seconds()
    words = ["waves", "alpha", "2.0", "--wave", "now=5%", "--wave", "+1d=0.5", "--wave", "+2d=100%"]
    assert "who is in stays in" in run(*words, code=7)["error"]  # it was published for everybody
    run(*words, "--anew")
    offers, _ = seen(repository, tmp_path)
    waves = offers["2.0"].waves
    assert [wave.fraction for wave in waves] == [0.05, 0.5, 1.0]
    assert abs(waves[1].start - now - DAY) < 120
    assert taken(repository, tmp_path, "1.1", now=now + 60, wariness=0.04)[0] == "2.0"
    assert taken(repository, tmp_path, "1.1", now=now + 60, wariness=0.3)[0] == ""
    assert taken(repository, tmp_path, "1.1", now=now + DAY + 60, wariness=0.3)[0] == "2.0"
    assert taken(repository, tmp_path, "1.1", now=now + 3 * DAY, wariness=1.0)[0] == "2.0"
    # Who is in stays in: fewer hosts than now is no wave but a pause.
    assert "who is in stays in" in run("waves", "alpha", "2.0", "--wave", "now=1%", code=7)["error"]
    assert "who is in stays in" in run("waves", "alpha", "1.1", "--over", "6d", code=7)["error"]  # it is everywhere
    run("waves", "alpha", "2.0", "--wave", "now=20%", "--dry-run")
    run("waves", "alpha", "2.0", "--over", "6d", code=7)
    run("waves", "alpha", "2.0", "--all")
    assert seen(repository, tmp_path)[0]["2.0"].waves == ()
    for bad in (["--wave", "now"], ["--wave", "now=x"], ["--wave", "soon=5%"], ["--wave", "now=0"], ["--wave", "now=2"],
                ["--wave", "now=50%", "--wave", "+1d=20%"], ["--wave", "2026-01-01T00:00:00=5%"], [],
                ["--all", "--over", "1d"]):  # fmt: skip
        run("waves", "alpha", "2.0", *bad, code=2)


def test_a_release_is_added_and_promoted_with_waves(run: Run, repository: str, tmp_path: Path) -> None:
    words = ["--channel", "alpha", binary(tmp_path, "3.0"), "--over", "10d", "--barrier", "--floor", "1.1"]
    assert main(["release", "add", repository, *words, "--dry-run"]) == 0
    run("publish", "--dry-run")
    assert main(["release", "add", repository, *words]) == 0
    run("publish", "--dry-run")
    run("publish")
    offer = seen(repository, tmp_path)[0]["3.0"]
    assert (offer.floor, offer.barrier, len(offer.waves)) == ("1.1", True, 6)
    assert main(["release", "promote", repository, "3.0", "alpha", "beta", "--wave", "now=50%"]) == 0
    run("publish")
    promoted = seen(repository, tmp_path, "beta")[0]["3.0"]
    assert promoted.sha256 == offer.sha256
    assert [wave.fraction for wave in promoted.waves] == [0.5]  # each channel has its own
    assert promoted.barrier


def test_yanked_releases(run: Run, repository: str, tmp_path: Path) -> None:
    run("yank", "alpha", "2.0", "--why", "it loses data")
    assert taken(repository, tmp_path, "1.0")[0] == "1.1"
    assert "2.0 was withdrawn: it loses data" in taken(repository, tmp_path, "2.0")[1]
    assert run("pause", "alpha")["rules"]["alpha"]["yanked"] == {"2.0": "it loses data"}
    run("resume", "alpha")
    assert main(["release", "promote", repository, "2.0", "alpha", "beta"]) == 7
    run("yank", "alpha", "2.0", "--undo")
    assert taken(repository, tmp_path, "1.0")[0] == "2.0"
    run("yank", "alpha", "2.0", "--undo", code=4)
    run("yank", "alpha", "2.0", code=2)
    run("yank", "alpha", "7.0", "--why", "x", code=4)


def test_dead_ends(run: Run, repository: str, tmp_path: Path) -> None:
    run("dead-end", "alpha", "1.0", "--why", "install anew, see https://example.org/1.0")
    found, why = taken(repository, tmp_path, "1.0")
    assert found == ""
    assert "1.0 is a dead end, no update leads on from it: install anew, see https://example.org/1.0" in why
    assert taken(repository, tmp_path, "1.1")[0] == "2.0"
    run("dead-end", "alpha", "1.0", "--undo")
    assert taken(repository, tmp_path, "1.0")[0] == "2.0"
    run("dead-end", "alpha", "1.0", "--undo", code=4)


def test_floors_barriers_and_the_way_that_verify_shows(run: Run, repository: str, tmp_path: Path) -> None:
    run("floor", "alpha", "2.0", "1.1")
    assert taken(repository, tmp_path, "1.0") == ("1.1", "2.0 needs 1.1 first")
    assert "comes before it" in run("floor", "alpha", "2.0", "2.0", code=2)["error"]
    assert "holds no version to pass it with" in run("floor", "alpha", "1.0", "0.5", code=2)["error"]
    run("floor", "alpha", "2.0", "none")
    run("barrier", "alpha", "1.1")
    assert taken(repository, tmp_path, "1.0") == ("1.1", "2.0 needs 1.1 first, a barrier")
    assert main(["release", "verify", repository, "--as-host"]) == 0
    from appliance.release import outlook

    ways = {one["from"]: (one["steps"], one["stuck"]) for one in outlook(repository)["ways"]}
    assert ways == {"1.0": (["1.1", "2.0"], False), "1.1": (["2.0"], False), "2.0": ([], False)}
    run("pause", "alpha", "1.1")
    assert outlook(repository)["ways"][-1]["stuck"] is False  # a pause ends
    run("barrier", "alpha", "1.1", "--undo")
    run("yank", "alpha", "1.1", "--why", "x")
    run("barrier", "alpha", "1.1", code=7)


def test_minimum(run: Run, repository: str, tmp_path: Path) -> None:
    run("waves", "alpha", "2.0", "--all")
    assert "holds nothing so new" in run("minimum", "alpha", "3.0", code=2)["error"]
    run("minimum", "alpha", "1.1")
    offers, policy = seen(repository, tmp_path)
    # Nothing older, even for who asks for a downgrade.
    choice = choose(offers.values(), running="9.0", denied=[("2.0", ""), ("1.1", "")], channel="alpha", policy=policy,
                    downgrade=True)  # fmt: skip
    assert choice.offer is None
    assert "1.0 is older than 1.1, the least that channel alpha allows" in choice.reason
    # Who is below it does not wait for a wave.
    from dataclasses import replace

    late = [replace(offers["2.0"], waves=(Wave(4e9, 1.0),))]
    for running, found in (("1.0", "2.0"), ("1.1", None)):
        choice = choose(late, running=running, denied=(), channel="alpha", policy=policy, now=2e9, seed="x")
        assert (choice.offer.version if choice.offer else None) == found
    run("minimum", "alpha", "none")
    assert seen(repository, tmp_path)[1].minimum == ""


def test_prune(run: Run, repository: str, tmp_path: Path) -> None:
    run("yank", "alpha", "1.1", "--why", "x")
    dry = run("prune", "--dry-run")
    done = run("prune", "--grace", "0s")
    assert [one["version"] for one in dry["pruned"]] == [one["version"] for one in done["pruned"]] == ["1.1"]
    assert dry["removed_files"] >= 1
    assert not Path(repository, "targets/alpha/1.1").exists()
    assert seen(repository, tmp_path)[1].yanked == {"1.1": "x"}  # who runs it is still told
    left = sorted(path.name for path in Path(repository, "metadata").iterdir())
    assert len([name for name in left if name.endswith("alpha.json")]) == 1
    assert "1.root.json" in left
    add(repository, binary(tmp_path, "2.1"))
    add(repository, binary(tmp_path, "3.0"), floor="2.0")
    run("publish")
    # 2.1 passes the floor of 3.0 as well as 2.0 does, and 1.0 is nobody's.
    assert {one["version"] for one in run("prune", "--keep", "1")["pruned"]} == {"2.0", "1.0"}
    offers, _ = seen(repository, tmp_path)
    assert set(offers) == {"2.1", "3.0"}
    assert taken(repository, tmp_path, "1.0")[0] == "2.1"
    run("prune", "--keep=-1", code=2)


def test_refresh_renews_and_says_what_expires(run: Run, repository: str, tmp_path: Path) -> None:
    answer = run("refresh")
    assert answer["signed"] == ["snapshot", "timestamp"]
    assert {one["role"] for one in answer["expires"]} == {
        "root", "targets", "alpha", "beta", "stable", "snapshot", "timestamp",
    }  # fmt: skip
    for name in ("root-1", "targets", "alpha", "beta", "stable"):
        Path(tmp_path, "keys", f"{name}.pem").unlink()
    assert run("refresh", "--within", "9999d")["signed"] == ["snapshot", "timestamp"]  # online keys are enough
    run("refresh", "--timestamp-expires", "1d", "--dry-run")
    assert run("refresh", "--timestamp-expires", "1d")["warnings"][0].startswith("timestamp expires on")
    run("refresh", "--timestamp-expires", "0s", code=2)
