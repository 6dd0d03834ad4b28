"""What etcd's flags ask for is so: limits, quota, the configuration file, JSON web tokens, certificates taken back."""

from __future__ import annotations

import datetime
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from appliance.cli.etcd import options_of
from appliance.cli.etcd_config import flags_of
from appliance.errors import InputError
from appliance.etcdapi import ApiOptions, Listen
from appliance.etcdapi.jwt import JwtTokens
from appliance.etcdapi.pb import rpc_pb2 as pb
from appliance.host.sockets import Address
from appliance.host.tls import TlsFiles
from appliance.store import Limits
from tests.etcdapi.client import Client
from tests.etcdapi.serving import serving
from tests.etcdapi.test_standalone import SOURCE, etcdctl, started
from tests.etcdapi.test_transcript import free_port

YAML = """\
# This is the configuration file for the etcd server.
name: 'default one'   # human-readable
data-dir: /tmp/x#y
wal-dir:
snapshot-count: 10000
quota-backend-bytes: 8388608
listen-client-urls: "http://127.0.0.1:1,http://127.0.0.1:2"
cors: ~
client-transport-security:
  # Path to the client server TLS cert file.
  cert-file: c.pem
  key-file: k.pem
  client-cert-auth: false
peer-transport-security:
  cert-file:
log-outputs: [stderr, 'stdout']
initial-cluster-state: 'new'
unheard-of: 1
"""


def test_configuration_file(tmp_path: Path) -> None:
    flags = flags_of(YAML, "f")
    assert flags == {
        "name": "default one", "data-dir": "/tmp/x#y", "snapshot-count": "10000", "quota-backend-bytes": "8388608",
        "listen-client-urls": "http://127.0.0.1:1,http://127.0.0.1:2", "cert-file": "c.pem", "key-file": "k.pem",
        "client-cert-auth": "false", "log-outputs": "stderr,stdout", "initial-cluster-state": "new", "unheard-of": "1",
    }  # fmt: skip
    assert flags_of("log-outputs:\n- stderr\n  # more\n- 'a b'\nname: x\n", "f") == {
        "log-outputs": "stderr,a b", "name": "x",
    }  # fmt: skip
    json = '{"name": "x", "force-new-cluster": false, "client-transport-security": {"auto-tls": true}, "cors": null}'
    assert flags_of(json, "f") == {"name": "x", "force-new-cluster": "false", "auto-tls": "true"}
    (tmp_path / "etcd.yaml").write_text(YAML)
    options = options_of({"config-file": str(tmp_path / "etcd.yaml"), "name": "flag"}, {"ETCD_NAME": "variable"})
    assert (options.name, options.quota, options.data_dir) == ("default one", 8 << 20, "/tmp/x#y")
    assert len(options.listen) == 2
    assert any("unheard-of is not known" in note for note in options.notes)
    assert options_of({}, {"ETCD_CONFIG_FILE": str(tmp_path / "etcd.yaml")}) == options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n  y: z\n", "line 2"), ("name: |\n  x\n", "line 1"), ("- x\n", "line 1"), ("name: &a x\n", "line 1"),
        ("name: x\nname: y\n", "twice"), ('name: "x\n', "line 1"), ("name\n", "line 1"), ("a: [x\n", "line 1"),
        ("{", "Expecting"), ('{"name": {"x": {}}}', "a text"), ("table:\n  x: y\n", "no table"), ("\tname: x\n", "1"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        flags_of(text, "f")


def test_quota_is_etcds() -> None:
    assert options_of({}, {}).quota == 2 << 30
    assert options_of({"quota-backend-bytes": "-1"}, {}).quota == 0


@pytest.mark.slow
def test_flags_take_effect(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "etcd.yaml").write_text(
        f"name: x\ndata-dir: {tmp_path}/data\nlisten-client-urls: {url}\nadvertise-client-urls: {url}\n"
        "max-txn-ops: 3\nmax-request-bytes: 3000000\nquota-backend-bytes: 16777216\ncors: 'https://page.example'\n"
    )
    with started(SOURCE, "--config-file", str(tmp_path / "etcd.yaml")):
        puts = "".join(f"put k{n} v\n" for n in range(4))
        said = subprocess.run(
            ["etcdctl", "--endpoints", url, "txn"], input=f"\n{puts}\n\n", check=False, capture_output=True, text=True,
            timeout=60, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert "too many operations in txn request" in said.stderr
        body = {"key": "YQ==", "value": "A" * 3_000_000}  # 2.25 MB: more than an etcd takes unless it is told to
        assert httpx.post(f"{url}/v3/kv/put", json=body, trust_env=False, timeout=60).status_code == 200
        answer = httpx.post(f"{url}/v3/kv/put", json=body | {"value": "A" * 4_100_000}, trust_env=False, timeout=60)
        assert "request is too large" in answer.text
        for _ in range(10):
            answer = httpx.post(f"{url}/v3/kv/put", json=body, trust_env=False, timeout=60)
            if answer.status_code != 200:
                break
        assert "mvcc: database space exceeded" in answer.text
        assert "alarm:NOSPACE" in etcdctl(url, "alarm", "list")
        asking = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{url}/v3/kv/put", headers=asking, trust_env=False, timeout=60)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"


def key_files(directory: Path, method: str) -> dict[str, str]:
    if method.startswith("HS"):
        (directory / "secret").write_bytes(b"something long that nobody knows")
        return {"private_key": str(directory / "secret")}
    curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
    private = (
        ec.generate_private_key(curves[method]()) if method in curves else rsa.generate_private_key(65537, 2048)
    )  # fmt: skip
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (directory / "private").write_bytes(private.private_bytes(pem, form, serialization.NoEncryption()))
    (directory / "public").write_bytes(private.public_key().public_bytes(pem, public))
    return {"private_key": str(directory / "private"), "public_key": str(directory / "public")}


@pytest.mark.parametrize("method", ["RS256", "PS384", "ES256", "ES384", "ES512", "HS512"])
def test_json_web_tokens(method: str, tmp_path: Path) -> None:
    files = key_files(tmp_path, method)
    tokens = JwtTokens(method, **files)
    token = tokens.give("alice", 7)
    assert tokens.user_of(token, 7) == "alice"
    assert JwtTokens(method, **files).user_of(token, 7) == "alice"  # after a restart, and elsewhere
    for bad in (token[:-8], b"", b"a.b.c", token.replace(b".", b"", 1), b".".join((*token.split(b".")[:2], b"AA"))):
        with pytest.raises(Exception, match="invalid auth token"):
            tokens.user_of(bad, 7)
    with pytest.raises(Exception, match="revision of auth store is old"):
        tokens.user_of(token, 8)
    with pytest.raises(Exception, match="invalid auth token"):
        tokens.user_of(JwtTokens(method, **files, seconds=-1).give("alice", 7), 7)
    if not method.startswith("HS"):
        reader = JwtTokens(method, public_key=files["public_key"])
        assert reader.user_of(token, 7) == "alice"
        with pytest.raises(Exception, match="verify-only"):
            reader.give("alice", 7)
        with pytest.raises(InputError, match="of another kind"):
            JwtTokens("ES256" if method[0] != "E" else "RS256", **files)


def test_a_certificate_is_a_public_key(tmp_path: Path) -> None:
    """As in the files of etcd's own tests."""
    from appliance.host.self_signed import make_self_signed

    certificate, key = make_self_signed(str(tmp_path / "pair"), ["localhost"])
    tokens = JwtTokens("ES256", private_key=key, public_key=certificate)
    assert tokens.user_of(tokens.give("alice", 7), 7) == "alice"
    assert JwtTokens("ES256", public_key=certificate).user_of(tokens.give("alice", 7), 7) == "alice"


@pytest.mark.slow
def test_json_web_tokens_over_a_restart(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    files = key_files(tmp_path, "ES256")
    flags = ("--data-dir", str(tmp_path / "data"), "--listen-client-urls", url, "--advertise-client-urls", url)
    jwt = f"jwt,pub-key={files['public_key']},priv-key={files['private_key']},sign-method=ES256,ttl=10m"

    def ask(verb: str, body: dict[str, str], token: str = "") -> httpx.Response:
        return httpx.post(
            f"{url}/v3/{verb}", json=body, headers={"Authorization": token}, trust_env=False, timeout=60
        )  # fmt: skip

    with started(SOURCE, *flags, "--auth-token", jwt):
        for verb in ("user add root:pw", "user grant-role root root", "auth enable"):
            etcdctl(url, *verb.split())
        assert etcdctl(url, "--user", "root:pw", "put", "a", "b") == "OK\n"
        token = ask("auth/authenticate", {"name": "root", "password": "pw"}).json()["token"]
    with started(SOURCE, *flags, "--auth-token", jwt):
        assert ask("kv/range", {"key": "YQ=="}, token).json()["count"] == "1"
        assert etcdctl(url, "--user", "root:pw", "user", "add", "other:pw") == "User other created\n"
        assert "revision of auth store is old" in ask("kv/range", {"key": "YQ=="}, token).text
        assert etcdctl(url, "--user", "root:pw", "get", "a") == "a\nb\n"


@pytest.mark.slow
def test_a_certificate_of_our_own(tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    flags = ("--data-dir", str(tmp_path), "--listen-client-urls", url, "--advertise-client-urls", url, "--auto-tls")
    for _ in range(2):  # the same one again
        with started(SOURCE, *flags):
            assert etcdctl(url, "--insecure-transport=false", "--insecure-skip-tls-verify", "put", "a", "b") == "OK\n"
            authority = str(tmp_path / "fixtures/client/cert.pem")
            assert etcdctl(url, "--cacert", authority, "get", "a") == "a\nb\n"


async def test_certificates_that_were_taken_back(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, good, bad = (authority.issue_cert(name) for name in ("127.0.0.1", "good.example", "bad.example"))
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    serial = x509.load_pem_x509_certificate(bad.cert_chain_pems[0].bytes()).serial_number
    now = datetime.datetime(2026, 1, 1)
    taken = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer).last_update(now)
    crl = builder.next_update(now + datetime.timedelta(days=1)).add_revoked_certificate(taken)
    signed = crl.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (tmp_path / "crl.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files = TlsFiles(*(str(tmp_path / name) for name in ("server.pem", "server.pem", "ca.pem", "crl.pem")))
    listen = [Listen(Address("127.0.0.1", 0), files, trusting=True)]
    async with serving(tmp_path / "store", listen=listen) as (address, _):
        for each, works in ((good, True), (bad, False)):
            each.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            context.load_cert_chain(tmp_path / "client.pem")
            async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as client:
                if works:
                    assert (await client.get(f"https://{address}/health")).status_code == 200
                else:
                    with pytest.raises(httpx.HTTPError):
                        await client.get(f"https://{address}/health")


async def test_nested_transactions_share_what_is_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path, options=ApiOptions(limits=Limits(5, 1000))) as (address, _):
        client = await Client.connect(address)
        try:

            def txn(*inner: pb.RequestOp, count: int) -> pb.TxnRequest:
                puts = [pb.RequestOp(request_range=pb.RangeRequest(key=b"%d" % n)) for n in range(count)]
                return pb.TxnRequest(success=[*inner, *puts])

            nested = pb.RequestOp(request_txn=txn(count=3))
            await client.ask("KV/Txn", txn(nested, count=1), pb.TxnResponse)
            with pytest.raises(EOFError, match="too many operations"):
                await client.ask("KV/Txn", txn(nested, count=2), pb.TxnResponse)
            with pytest.raises(EOFError, match="request is too large"):
                await client.ask("KV/Put", pb.PutRequest(key=b"a", value=bytes(1000)), pb.PutResponse)
        finally:
            await client.aclose()
