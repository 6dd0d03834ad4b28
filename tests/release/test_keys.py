"""Keys that are not plain files: passphrases, commands, an ssh-agent, a PKCS#11 token; and roots signed offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from appliance.cli import main
from appliance.errors import ConflictError, InputError, NotFoundError, UnavailableError
from appliance.release import (
    Expiry,
    KeyRing,
    add_role_key,
    create,
    export_payload,
    import_payload,
    listing,
    publish,
    refresh,
    revoke_role_key,
    rotate,
    sign_payload,
    verify,
)
from tests.release.test_release import add, binary, served


@pytest.fixture
def repository(tmp_path: Path) -> str:
    directory = str(tmp_path / "repository")
    ring = KeyRing(str(tmp_path / "keys"))
    publish(directory, ring, fresh=create(directory, ring, root_keys=3, threshold=2))
    return directory


@pytest.fixture
def keys(tmp_path: Path) -> str:
    return str(tmp_path / "keys")


def check(repository: str, tmp_path: Path) -> int:
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    return len(verify(repository, trust_root=f"{repository}/metadata/1.root.json", scratch=str(scratch)))


def release_with_beta(repository: str, ring: KeyRing, tmp_path: Path, version: str = "1.0") -> None:
    """Something that beta's key must sign."""
    add(repository, binary(tmp_path, version), "beta")
    publish(repository, ring)


def test_keys_with_a_passphrase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, keys, secret = str(tmp_path / "r"), str(tmp_path / "k"), tmp_path / "secret"
    secret.write_text("correct horse\n")
    words = ["--keys", keys, "--passphrase-file", str(secret)]
    assert main(["release", "init", directory, "--root-keys", "1", "--threshold", "1", "--passphrase", *words]) == 0
    assert b"ENCRYPTED" in Path(keys, "alpha.pem").read_bytes()
    assert main(["release", "key", "list", directory, "--keys", keys]) == 0  # who signs what is no secret
    assert "file with passphrase" in capsys.readouterr().out
    before = served(directory)
    assert main(["release", "refresh", directory, "--keys", keys]) == 2
    assert "it has a passphrase (APPLIANCE_KEY_PASSPHRASE" in capsys.readouterr().err
    monkeypatch.setenv("APPLIANCE_KEY_PASSPHRASE", "wrong")
    assert main(["release", "refresh", directory, "--keys", keys]) == 2
    assert "the passphrase is wrong" in capsys.readouterr().err
    assert served(directory) == before
    monkeypatch.setenv("APPLIANCE_KEY_PASSPHRASE", "correct horse")
    assert main(["release", "refresh", directory, "--keys", keys]) == 0
    assert main(["release", "key", "rotate", directory, "alpha", "--passphrase", "--keys", keys]) == 0
    assert b"ENCRYPTED" in Path(keys, "alpha_2.pem").read_bytes()
    monkeypatch.delenv("APPLIANCE_KEY_PASSPHRASE")
    assert main(["release", "key", "rotate", directory, "beta", "--passphrase", "--keys", keys]) == 2
    # The public half beside it lies: found out when it signs.
    shutil.copy(f"{keys}/beta.pub", f"{keys}/stable.pub")
    assert KeyRing(keys).names  # nothing is opened for that


@pytest.mark.parametrize("encoding", ["cat", "base64", "od -An -tx1 | tr -d ' \\n'"])
def test_a_command_signs(repository: str, keys: str, tmp_path: Path, encoding: str) -> None:
    """openssl stands for a cloud's key service or a token: raw, base64, hex."""
    private, public, temp = tmp_path / "p.pem", tmp_path / "p.pub", tmp_path / "payload"
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    command = f"cat > {temp} && openssl dgst -sha256 -sign {private} {temp} | {encoding}"
    ring = KeyRing(keys)
    add_role_key(
        repository, ring, "beta", "token",
        lambda: ring.connect("token", public.read_bytes(), command=command), threshold=2,
    )  # fmt: skip
    ring = KeyRing(keys)
    assert ring.kinds[ring.named("token").keyid] == "command"  # type: ignore[union-attr]
    release_with_beta(repository, ring, tmp_path)
    assert check(repository, tmp_path) == 1
    roles = {one["role"]: (one["threshold"], one["keys"]) for one in listing(repository)["roles"]}
    assert roles["beta"] == (2, 2)


@pytest.mark.parametrize(
    ("command", "error"),
    [("exit 3", "it ended with code 3"), ("true", "it printed 0 bytes"), ("echo nonsense", "is no signature by"),
     ("head -c 64 /dev/urandom", "is no signature by that key"), ("yes | head -c 2000000", "it printed 2000000 bytes")],
)  # fmt: skip
def test_a_command_that_fails_or_lies_changes_nothing(
    repository: str, keys: str, tmp_path: Path, command: str, error: str
) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "p.pem"], check=True)
    public = subprocess.run(["openssl", "pkey", "-in", tmp_path / "p.pem", "-pubout"], check=True, capture_output=True)
    ring, before = KeyRing(keys), served(repository)
    with pytest.raises(UnavailableError, match=error):
        add_role_key(repository, ring, "beta", "token", lambda: ring.connect("token", public.stdout, command=command))
    assert served(repository) == before
    assert not Path(keys, "token.signer").exists()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent of our own."""
    path = Path("/tmp", f"agent-{os.getpid()}")  # short: a socket's path has 107 bytes
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        while not path.exists():
            assert process.poll() is None
        yield tmp_path
    finally:
        process.terminate()
        process.wait()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    "kind", [("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384")], ids=lambda kind: "-".join(kind)
)
def test_the_ssh_agent_signs(
    repository: str, keys: str, agent: Path, kind: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = agent / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-C", "me@desk", "-f", file], check=True)
    subprocess.run(["ssh-add", "-q", file], check=True)
    file.unlink()  # only the agent has it now
    assert main(["release", "key", "add", repository, "beta", "--keys", keys, "--ssh-agent", f"{file}.pub"]) == 0
    assert main(["release", "key", "revoke", repository, "beta", "beta", "--keys", keys]) == 0
    Path(keys, "beta.pem").unlink()
    release_with_beta(repository, KeyRing(keys), agent)
    assert check(repository, agent) == 1
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    before = served(repository)
    with pytest.raises(UnavailableError, match="does not hold the key"):
        release_with_beta(repository, KeyRing(keys), agent, "1.1")
    assert served(repository) == before
    monkeypatch.setenv("SSH_AUTH_SOCK", "")
    with pytest.raises(InputError, match="SSH_AUTH_SOCK is not set"):
        publish(repository, KeyRing(keys))


def test_a_pkcs11_token_signs(repository: str, keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """softhsm2 for a token, OpenSC's pkcs11-tool for the command: the private half never leaves the token."""
    for tool in ("softhsm2-util", "pkcs11-tool"):
        if not shutil.which(tool):
            pytest.skip(f"there is no {tool} (apt-get install softhsm2 opensc)")
    (tmp_path / "tokens").mkdir()
    config = tmp_path / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(config))
    tool = "pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label release --pin 1234"
    for line in (
        "softhsm2-util --init-token --free --label release --pin 1234 --so-pin 1234",
        f"{tool} --keypairgen --key-type EC:prime256v1 --id 01",
        f"{tool} --read-object --type pubkey --id 01 -o {tmp_path}/p.der",
        f"openssl pkey -pubin -inform DER -in {tmp_path}/p.der -out {tmp_path}/p.pub",
    ):
        subprocess.run(line.split(), check=True, capture_output=True)
    script = tmp_path / "sign"  # the token signs a digest, and writes r and s
    script.write_text(
        f"cd {tmp_path} && openssl dgst -sha256 -binary > digest && "
        f"{tool} --sign --mechanism ECDSA --id 01 -i digest -o signature >&2 && cat signature"
    )
    command = f"sh {script}"
    words = ["--keys", keys, "--signer", command, "--public", f"{tmp_path}/p.pub"]
    assert main(["release", "key", "add", repository, "beta", *words]) == 0
    assert main(["release", "key", "revoke", repository, "beta", "beta", "--keys", keys]) == 0
    Path(keys, "beta.pem").unlink()
    release_with_beta(repository, KeyRing(keys), tmp_path)
    assert check(repository, tmp_path) == 1


def test_revoking(repository: str, keys: str, tmp_path: Path) -> None:
    ring, before = KeyRing(keys), served(repository)
    with pytest.raises(InputError, match="threshold would be 1 of 0 keys"):
        revoke_role_key(repository, ring, "alpha", "alpha")
    with pytest.raises(InputError, match="threshold would be 3 of 2 keys"):
        add_role_key(repository, ring, "stable", "x", lambda: ring.make("x"), threshold=3)
    with pytest.raises(InputError, match="there is no role nightly"):
        add_role_key(repository, ring, "nightly", "x", lambda: ring.make("x"))
    with pytest.raises(NotFoundError, match="0 keys of alpha are called so"):
        revoke_role_key(repository, ring, "alpha", "nothing")
    with pytest.raises(ConflictError, match="it exists"):
        add_role_key(repository, ring, "alpha", "beta", lambda: ring.make("beta"))
    assert served(repository) == before
    assert not Path(keys, "x.pem").exists()
    add_role_key(repository, ring, "alpha", "alpha_2", lambda: ring.make("alpha_2"))
    gone = revoke_role_key(repository, ring, "alpha", "alpha")
    Path(keys, "alpha.pem").unlink()
    ring = KeyRing(keys)
    assert gone not in ring.names
    add(repository, binary(tmp_path, "1.0"))
    publish(repository, ring)
    assert check(repository, tmp_path) == 1


def test_a_lost_timestamp_key_is_replaced(repository: str, keys: str, tmp_path: Path) -> None:
    """The old key cannot sign any more, so nothing is good under both roots; hosts follow the root."""
    Path(keys, "timestamp.pem").unlink()
    ring = KeyRing(keys)
    with pytest.raises(NotFoundError, match="holds no such key"):
        rotate(repository, ring, "timestamp")
    old = Metadata[Root].from_file(f"{repository}/metadata/1.root.json").signed.roles["timestamp"].keyids[0]
    add_role_key(repository, ring, "timestamp", "timestamp_2", lambda: ring.make("timestamp_2"))
    revoke_role_key(repository, ring, "timestamp", old[:10])
    refresh(repository, KeyRing(keys))
    assert check(repository, tmp_path) == 0


def test_a_dry_run_changes_nothing(repository: str, keys: str, tmp_path: Path) -> None:
    ring, before = KeyRing(keys), served(repository)
    rotate(repository, ring, "alpha", dry_run=True)
    add_role_key(repository, ring, "root", "more", lambda: ring.make("more"), dry_run=True)
    refresh(repository, ring, dry_run=True)
    add(repository, binary(tmp_path, "1.0"), dry_run=True)
    assert publish(repository, ring, dry_run=True) == []
    add(repository, binary(tmp_path, "1.0"))
    assert [one.version for one in publish(repository, ring, dry_run=True)] == ["1.0"]
    assert served(repository) == before
    assert sorted(path.name for path in Path(keys).iterdir()) == sorted(f"{name}.pem" for name in ring.names.values())


# --- the ceremony ---


@pytest.fixture
def holders(repository: str, keys: str, tmp_path: Path) -> list[str]:
    """Three root keys on three sticks; the publisher has none of them."""
    sticks = []
    for number in (1, 2, 3):
        stick = tmp_path / f"stick-{number}"
        stick.mkdir()
        Path(keys, f"root-{number}.pem").rename(stick / f"root-{number}.pem")
        sticks.append(str(stick))
    return sticks


def test_a_root_is_renewed_offline(repository: str, keys: str, holders: list[str], tmp_path: Path) -> None:
    payload, ring = str(tmp_path / "root.json"), KeyRing(keys)
    assert export_payload(repository, payload, expiry=Expiry(), dry_run=True)["version"] == 2
    assert not Path(payload).exists()
    told = export_payload(repository, payload, expiry=Expiry())
    assert told["changes"] == ["nothing but a later expiry"]
    with pytest.raises(ConflictError, match="it exists"):
        export_payload(repository, payload, expiry=Expiry())
    before = served(repository)
    with pytest.raises(InputError, match="0 of the 2 signatures that the present root needs"):
        import_payload(repository, [payload], ring, expiry=Expiry())
    with pytest.raises(InputError, match="holds no root key"):
        sign_payload(payload, ring)
    with pytest.raises(InputError, match="holds no key root-9"):
        sign_payload(payload, KeyRing(holders[0]), ["root-9"])
    unsigned = Path(payload).read_bytes()
    assert sign_payload(payload, KeyRing(holders[0]), dry_run=True)["signatures"] == 1
    assert Path(payload).read_bytes() == unsigned
    assert sign_payload(payload, KeyRing(holders[0]))["signatures"] == 1
    with pytest.raises(InputError, match="1 of the 2 signatures"):
        import_payload(repository, [payload], ring, expiry=Expiry())
    assert served(repository) == before
    assert sign_payload(payload, KeyRing(holders[2]))["signatures"] == 2
    import_payload(repository, [payload], ring, expiry=Expiry(), dry_run=True)
    assert served(repository) == before
    import_payload(repository, [payload], ring, expiry=Expiry())
    with pytest.raises(ConflictError, match="3 comes next"):
        import_payload(repository, [payload], ring, expiry=Expiry())
    assert listing(repository)["roles"][0]["version"] == 2
    add(repository, binary(tmp_path, "1.0"))
    publish(repository, ring)
    assert check(repository, tmp_path) == 1


def test_copies_signed_apart_replace_a_holder_and_an_online_key(
    repository: str, keys: str, holders: list[str], tmp_path: Path
) -> None:
    """A holder leaves, another comes, the threshold rises, and the timestamp gets a new key; all in one root."""
    fresh = KeyRing(str(tmp_path / "stick-4"))
    fresh.make("root-4")
    ring = KeyRing(keys)
    ring.make("timestamp_2")
    for name, directory in (("root-4", fresh.directory), ("timestamp_2", keys)):
        pem = subprocess.run(
            ["openssl", "pkey", "-in", f"{directory}/{name}.pem", "-pubout"], check=True, capture_output=True
        )
        (tmp_path / f"{name}.pub").write_bytes(pem.stdout)
    root = Metadata[Root].from_file(f"{repository}/metadata/1.root.json").signed
    leaver = KeyRing(holders[0]).named("root-1").keyid  # type: ignore[union-attr]
    payload = tmp_path / "root.json"
    words = ["--out", str(payload), "--add", f"root={tmp_path}/root-4.pub", "--revoke", f"root={leaver[:12]}"]
    words += [
        "--add",
        f"timestamp={tmp_path}/timestamp_2.pub",
        "--revoke",
        f"timestamp={root.roles['timestamp'].keyids[0]}",
    ]
    assert main(["release", "root", "export-payload", repository, *words, "--threshold", "root=3"]) == 0
    copies = []
    for number, stick in enumerate([*holders, fresh.directory]):
        copy = str(tmp_path / f"copy-{number}.json")
        shutil.copy(payload, copy)
        assert main(["release", "root", "sign", copy, "--keys", stick]) == 0
        copies.append(copy)
    before = served(repository)
    assert (
        main(["release", "root", "import", repository, copies[0], copies[1], "--keys", keys]) == 2
    )  # new ones: 1 of 3
    assert served(repository) == before
    assert main(["release", "root", "import", repository, *copies[1:], "--keys", keys]) == 0
    Path(keys, "timestamp.pem").unlink()
    refresh(repository, KeyRing(keys))
    assert check(repository, tmp_path) == 0
    tampered = json.loads(payload.read_text())
    tampered["signed"]["version"] = 3
    payload.write_text(json.dumps(tampered))
    with pytest.raises(InputError, match="0 of the 3 signatures that the present root needs"):
        import_payload(repository, [str(payload)], KeyRing(keys), expiry=Expiry())
    payload.write_text("{}")
    with pytest.raises(InputError, match="it is no root"):
        import_payload(repository, [str(payload)], KeyRing(keys), expiry=Expiry())
    with pytest.raises(InputError, match="threshold would be 9 of 3 keys"):
        export_payload(repository, str(tmp_path / "y"), thresholds={"root": 9}, expiry=Expiry())
    with pytest.raises(InputError, match="allowed are root, targets"):
        export_payload(repository, str(tmp_path / "y"), thresholds={"alpha": 1}, expiry=Expiry())
