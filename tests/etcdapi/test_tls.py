"""TLS with real clients: etcdctl and curl; who is let in, by certificate, by password, or not."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from appliance.errors import InputError
from appliance.etcdapi import Listen
from appliance.host.sockets import Address
from appliance.host.tls import ServerTls, TlsFiles, cipher_of
from tests.etcdapi.serving import serving

needs_etcdctl = pytest.mark.skipif(not shutil.which("etcdctl"), reason="needs etcdctl")


class Keys:
    """A server's certificate, an authority of clients, and one client of it."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.directory = directory
        self.authority = authority
        self.cert, self.key = self.issue("server", authority)
        self.client = self.issue("client", authority, common_name="ann")
        self.stranger = self.issue("stranger", trustme.CA(), common_name="root")

    def issue(self, name: str, authority: trustme.CA, *, common_name: str | None = None) -> tuple[Path, Path]:
        it = authority.issue_cert("127.0.0.1", "localhost", common_name=common_name)
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        key.write_bytes(it.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in it.cert_chain_pems))
        return cert, key

    def files(self, *, mutual: bool) -> TlsFiles:
        return TlsFiles(str(self.cert), str(self.key), str(self.ca) if mutual else None)

    def listen(self, *, mutual: bool) -> list[Listen]:
        return [Listen(Address("127.0.0.1", 0), self.files(mutual=mutual))]

    def flags(self, client: tuple[Path, Path] | None = None) -> list[str]:
        mine = [f"--cert={client[0]}", f"--key={client[1]}"] if client else []
        return [f"--cacert={self.ca}", *mine]


async def etcdctl(*arguments: str) -> str:
    done = await trio.run_process(
        ["etcdctl", "--command-timeout=5s", "--dial-timeout=5s", *arguments],
        env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, capture_stdout=True, capture_stderr=True, check=False,
    )  # fmt: skip
    return done.stdout.decode() + done.stderr.decode()


@needs_etcdctl
async def test_closed_until_authentication_is_enabled(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    unix = str(tmp_path / "etcd.sock")
    async with serving(tmp_path / "store", listen=keys.listen(mutual=False), unix_path=unix) as (address, _):
        secure = ["--endpoints", f"https://{address}", *keys.flags()]
        local = ["--endpoints", f"unix://{unix}"]
        assert "closed to the network until authentication is enabled" in await etcdctl(*secure, "put", "a", "b")
        for words in ("user add root:pw", "role add root", "user grant-role root root", "auth enable"):
            await etcdctl(*local, *words.split())
        assert "user name is empty" in await etcdctl(*secure, "put", "a", "b")
        assert await etcdctl(*secure, "--user", "root:pw", "put", "a", "b") == "OK\n"
        version = await trio.run_process(
            ["curl", "-sS", "--http1.1", "--cacert", str(keys.ca), f"https://{address}/version"], capture_stdout=True
        )
        assert b'"etcdserver"' in version.stdout
        await etcdctl(*local, "--user", "root:pw", "auth", "disable")
        assert "closed to the network" in await etcdctl(*secure, "get", "a")


@needs_etcdctl
async def test_the_certificates_name_is_the_user(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    unix = str(tmp_path / "etcd.sock")
    async with serving(tmp_path / "store", listen=keys.listen(mutual=True), unix_path=unix) as (address, _):
        secure = ["--endpoints", f"https://{address}", *keys.flags(keys.client)]
        local = ["--endpoints", f"unix://{unix}"]
        assert await etcdctl(*secure, "put", "a", "b") == "OK\n"
        for words in (
            "user add root:pw", "role add root", "user grant-role root root", "user add ann --no-password",
            "role add reader", "role grant-permission reader read a", "user grant-role ann reader", "auth enable",
        ):  # fmt: skip
            await etcdctl(*local, *words.split())
        assert await etcdctl(*secure, "get", "a") == "a\nb\n"
        assert "permission denied" in await etcdctl(*secure, "put", "a", "c")
        for flags in (keys.flags(), keys.flags(keys.stranger)):
            assert "a\nb" not in await etcdctl("--endpoints", f"https://{address}", *flags, "get", "a")


async def test_nonsense_instead_of_a_handshake(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    async with serving(tmp_path / "store", listen=keys.listen(mutual=False)) as (address, _):
        host, _, port = address.rpartition(":")
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x40\x00" + bytes(16384), b"\0" * 100_000):
            stream = await trio.open_tcp_stream(host, int(port))
            with trio.fail_after(60):
                try:
                    await stream.send_all(nonsense)
                    while await stream.receive_some(65536):
                        pass
                except trio.BrokenResourceError:
                    pass  # hung up on
            await stream.aclose()
        quiet = socket.create_connection((host, int(port)))  # says nothing; the next one is served all the same
        done = await trio.run_process(
            ["curl", "-sS", "--cacert", str(keys.ca), f"https://{address}/health"], capture_stdout=True
        )
        assert b'"true"' in done.stdout
        quiet.close()


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Which version and cipher two agree on, without a socket."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname="localhost"), server.wrap_bio(there, back, server_side=True)]
    done: set[int] = set()
    while len(done) < 2:
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
    cipher = ends[0].cipher()
    assert cipher is not None
    return f"{ends[0].version()} {cipher[0]}"


def test_ciphers_and_versions_as_asked_for(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    client = ssl.create_default_context(cafile=str(keys.ca))

    def with_(**more: str) -> str:
        return shaken(ServerTls(dataclasses.replace(keys.files(mutual=False), **more), ("h2",)).context(), client)

    assert with_().startswith("TLSv1.3")
    assert with_(newest="TLS1.2", ciphers=cipher_of("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")) == (
        "TLSv1.2 ECDHE-ECDSA-AES128-GCM-SHA256"
    )
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError):
        with_(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        with_(oldest="TLS1.3")
    assert [cipher_of(name) for name in (
        "TLS_RSA_WITH_AES_128_CBC_SHA", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    )] == [
        "AES128-SHA", "ECDHE-RSA-AES256-GCM-SHA384", "", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305",
    ]  # fmt: skip
    for name in ("nope", "TLS_NOPE", "TLS_RSA_WITH_RC4_128_SHA", "TLS_PSK_WITH_AES_128_CBC_SHA", "AES128-SHA", ""):
        with pytest.raises(InputError, match="cannot use the cipher"):
            cipher_of(name)
    with pytest.raises(InputError, match="cannot use the ciphers NOPE"):
        with_(ciphers="NOPE")


def test_a_renewed_certificate_is_used(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    server = ServerTls(keys.files(mutual=False), ("h2",))
    first = server.context()
    assert server.context() is first
    keys.cert.write_text("broken")
    assert server.context() is first
    assert "cannot use" in server.problem
    keys.issue("server", keys.authority)
    assert server.context() is not first
    assert server.problem == ""
    keys.cert.write_text("broken")
    with pytest.raises(InputError, match="cannot use"):
        ServerTls(keys.files(mutual=False), ("h2",))
