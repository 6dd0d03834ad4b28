"""A certificate for ourselves, by ourselves, for ``--auto-tls``: it hides what is said, and proves nothing."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appliance.host import clock, files

if TYPE_CHECKING:
    from cryptography import x509

_YEARS = 1


def make_self_signed(directory: str, hosts: Sequence[str]) -> tuple[str, str]:
    """(certificate, key): the files' paths, those that are there already or new ones for these hosts."""
    cert, key = files.join(directory, "cert.pem"), files.join(directory, "key.pem")
    if files.exists(cert) and files.exists(key):
        return cert, key
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    now = datetime.datetime.fromtimestamp(clock.wall_seconds(), datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=True, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([_named(host) for host in dict.fromkeys(hosts)]), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .sign(private, hashes.SHA256())
    )
    files.make_directory(directory, mode=0o700)
    form, no_password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files.write_atomic(key, private.private_bytes(serialization.Encoding.PEM, form, no_password), mode=0o600)
    files.write_atomic(cert, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return cert, key


def _named(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
