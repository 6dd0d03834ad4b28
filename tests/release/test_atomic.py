"""Old or new, never between: kill -9 in every step of what a publisher does, judged by plain python-tuf clients."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tuf.ngclient.fetcher import FetcherInterface

from appliance.cli import main
from appliance.errors import ApplianceError, ConflictError, InputError
from appliance.host import failpoint, files
from appliance.host.slots import architecture
from appliance.release import KeyRing, change, create, listing, pause, publish, stage_promotion, yank
from appliance.release.repository import locked
from tests.release.test_release import add, binary, served


@pytest.fixture
def repository(tmp_path: Path) -> str:
    directory = str(tmp_path / "repository")
    ring = KeyRing(str(tmp_path / "keys"))
    publish(directory, ring, fresh=create(directory, ring, root_keys=1, threshold=1))
    add(directory, binary(tmp_path, "1.0"))
    publish(directory, ring)
    return directory


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys")


class Reader(FetcherInterface):
    """A plain client's fetcher, for file paths: no network is needed to be independent."""

    def _fetch(self, url: str):  # type: ignore[no-untyped-def]
        from tuf.api.exceptions import DownloadHTTPError

        path = Path(url.removeprefix("file://"))
        if not path.is_file():
            raise DownloadHTTPError("no such file", 404)
        yield path.read_bytes()


def plain_client(repository: str, directory: Path, *, root: int = 1) -> dict[str, str]:
    """python-tuf's own Updater, nothing of ours: every version in alpha whose bytes verify, and its sha256."""
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.updater import Updater

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "targets").mkdir(exist_ok=True)
    updater = Updater(
        metadata_dir=str(directory), metadata_base_url=f"file://{repository}/metadata",
        target_base_url=f"file://{repository}/targets", target_dir=str(directory / "targets"), fetcher=Reader(),
        config=UpdaterConfig(), bootstrap=Path(repository, f"metadata/{root}.root.json").read_bytes(),
    )  # fmt: skip
    updater.refresh()
    found = {}
    for version in ("1.0", "1.1"):
        info = updater.get_targetinfo(f"alpha/{version}/{architecture()}/appliance")
        if info is not None:
            file = updater.download_target(info, filepath=str(directory / "targets" / version))
            found[version] = files.sha256_file(file)
    return found


def test_a_plain_client_takes_a_release(repository: str, tmp_path: Path) -> None:
    assert plain_client(repository, tmp_path / "client") == {"1.0": files.sha256_file(binary(tmp_path, "1.0"))}


def test_a_plain_client_over_http(repository: str, tmp_path: Path) -> None:
    """With python-tuf's default fetcher, in a process of its own (ours leaves that fetcher out), from http.server."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=repository)  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        (tmp_path / "c").mkdir()
        code = f"""
from tuf.ngclient import Updater
url = "http://127.0.0.1:{server.server_port}"
root = open({repository!r} + "/metadata/1.root.json", "rb").read()
updater = Updater({str(tmp_path / "c")!r}, url + "/metadata", {str(tmp_path / "c")!r}, url + "/targets", bootstrap=root)
updater.refresh()
info = updater.get_targetinfo("alpha/1.0/{architecture()}/appliance")
print(updater.download_target(info))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert files.sha256_file(done.stdout.strip()) == files.sha256_file(binary(tmp_path, "1.0"))


VERBS = {
    "publish": ("publish",),
    "refresh": ("refresh", "--within", "9999d"),
    "rotate timestamp": ("key", "rotate", "timestamp"),
    "rotate targets": ("key", "rotate", "targets"),
    "rotate root": ("key", "rotate", "root-1"),
    "rotate alpha": ("key", "rotate", "alpha"),
    "pause": ("pause", "alpha"),
    "yank": ("yank", "alpha", "1.0", "--why", "x"),
    "prune": ("prune", "--grace", "0s"),
}
PLACES = ("targets", "alpha", "beta", "stable", "snapshot", "timestamp", "root")


def run(repository: str, keys: str, words: tuple[str, ...], failpoint_name: str = "") -> int:
    noun = 2 if words[0] == "key" else 1
    argv = ["release", *words[:noun], repository, *words[noun:], "--keys", keys]
    pid = os.fork()  # a process of its own to be killed, without the time that starting Python takes
    if pid == 0:
        code = 99
        try:
            failpoint._armed = failpoint_name
            with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
                code = main(argv)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("verb", VERBS)
def test_killed_anywhere_leaves_old_or_new(repository: str, keys: str, tmp_path: Path, verb: str) -> None:
    """Hosts of before and hosts that come anew both read it, after every kill, and after the same is done again."""
    if verb == "publish":
        add(repository, binary(tmp_path, "1.1"))
    if verb == "prune":
        add(repository, binary(tmp_path, "1.1"))
        publish(repository, KeyRing(keys))
        change(repository, KeyRing(keys), yank("alpha", "1.1", "it burns"))
    old = tmp_path / "old host"
    plain_client(repository, old)
    kills = 0
    for number, place in enumerate(PLACES):
        copy, copied_keys = str(tmp_path / f"copy-{number}"), str(tmp_path / f"keys-{number}")
        shutil.copytree(repository, copy)
        shutil.copytree(keys, copied_keys)
        code = run(copy, copied_keys, VERBS[verb], f"release.{place}.written")
        assert code in (0, -signal.SIGKILL), code
        kills += code != 0
        for name in ("again", "fresh"):
            client = tmp_path / f"{name}-{number}"
            if name == "again":
                shutil.copytree(old, client)
            assert "1.0" in plain_client(copy, client), (place, name)
        if code == 0:
            continue
        if "rotate" not in verb or not Path(copied_keys, f"{verb.split()[1]}_2.pem").exists():
            code = run(copy, copied_keys, VERBS[verb])
            assert code in (0, 7), (place, code)  # 7: it was done already
        assert run(copy, copied_keys, ("refresh",)) == 0
        found = plain_client(copy, tmp_path / f"after-{number}")
        assert set(found) == ({"1.0", "1.1"} if verb == "publish" else {"1.0"})
    assert kills >= 2


def test_two_publishers_do_not_meet(repository: str, keys: str) -> None:
    before = served(repository)
    with locked(repository), pytest.raises(ConflictError, match=f"pid {os.getpid()} holds it"):
        publish(repository, KeyRing(keys))
    with locked(repository), pytest.raises(ConflictError, match="holds it"):
        stage_promotion(repository, "1.0", "alpha", "beta")
    assert served(repository) == before
    assert run(repository, keys, ("pause", "alpha")) == 0


def test_our_own_root_has_expired(repository: str, keys: str, tmp_path: Path) -> None:
    """With root's keys here it is renewed; without them nothing is published that no host would believe."""
    expires = max(one["expires"] for one in listing(repository)["roles"] if one["role"] == "root")
    from appliance.update import parse_time

    later = parse_time(expires.replace("+00:00", "Z")) + 86400
    Path(keys, "root-1.pem").rename(tmp_path / "root-1.pem")
    before = served(repository)
    with pytest.raises(InputError, match=r"root expired on .* \(release root export-payload\)"):
        publish(repository, KeyRing(keys), now=later)
    assert served(repository) == before
    (tmp_path / "root-1.pem").rename(Path(keys, "root-1.pem"))
    publish(repository, KeyRing(keys), now=later)


def test_promotion_uploads_nothing(repository: str, keys: str) -> None:
    """The same bytes: one file with two names; a copy by rsync -H, or a server-side one of a bucket, moves none."""
    stage_promotion(repository, "1.0", "alpha", "beta")
    publish(repository, KeyRing(keys))
    (one,) = Path(repository, f"targets/alpha/1.0/{architecture()}").iterdir()
    (two,) = Path(repository, f"targets/beta/1.0/{architecture()}").iterdir()
    assert one.samefile(two)


def test_an_unknown_channel_changes_nothing(repository: str, keys: str) -> None:
    before = served(repository)
    with pytest.raises(ApplianceError, match='"nightly"'):
        change(repository, KeyRing(keys), pause("nightly", "", "x"))
    assert served(repository) == before
