"""TLS for servers: a context made of certificate files, anew when they have changed: renewal just works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.errors import ApplianceError, InputError
from appliance.host import files

if TYPE_CHECKING:
    import ssl  # 8 MB that nobody pays who has no TLS

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good
_CIPHERS_OF_13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_EXCHANGES = {"RSA": "", "ECDHE_RSA": "ECDHE-RSA-", "ECDHE_ECDSA": "ECDHE-ECDSA-"}


@dataclass(frozen=True)
class TlsFiles:
    """Who we are, and with ``client_ca_file`` whom clients must have been certified by.

    ``client_crl_file``: which of their certificates are taken back.
    """

    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    client_crl_file: str | None = None
    ciphers: str = ""  # of TLS 1.2, by OpenSSL's names; nothing: those that are good
    oldest: str = ""  # "TLS1.2" or "TLS1.3", as is ``newest``; nothing: whatever is good
    newest: str = ""


class ServerTls:
    """``context()`` is cheap: files are read again only when they have changed, and kept as they were if that fails."""

    def __init__(self, paths: TlsFiles, protocols: tuple[str, ...]) -> None:
        """Reads the files. Raises InputError when they are no certificate and key, or not of each other."""
        self._paths = paths
        self._protocols = protocols
        self.revoked: frozenset[int] = frozenset()  # serial numbers of certificates that were taken back
        self._stamp = self._look()
        self._context = self._load()
        self.problem = ""

    def context(self) -> ssl.SSLContext:
        """For one more connection."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._context = self._load()
                self.problem = ""
        except ApplianceError as error:
            self.problem = error.message
        return self._context

    def _look(self) -> tuple[files.FileStat, ...]:
        it = self._paths
        paths = (it.cert_file, it.key_file, it.client_ca_file, it.client_crl_file)
        return tuple(files.file_stat(path) for path in paths if path)

    def _load(self) -> ssl.SSLContext:
        import ssl

        it = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        versions = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}
        context.minimum_version = versions.get(it.oldest, ssl.TLSVersion.TLSv1_2)
        context.maximum_version = versions.get(it.newest, ssl.TLSVersion.MAXIMUM_SUPPORTED)
        try:
            context.set_ciphers(it.ciphers or _CIPHERS)
        except ssl.SSLError as exc:
            raise InputError(f"cannot use the ciphers {it.ciphers}: none of them is there") from exc
        context.set_alpn_protocols(list(self._protocols))
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.num_tickets = 0  # nobody resumes: clients of gRPC keep their connections
        try:
            context.load_cert_chain(it.cert_file, it.key_file)
        except OSError as exc:  # ssl's errors are, too
            raise InputError(f"cannot use {it.cert_file} with {it.key_file}: {exc.strerror or exc}") from exc
        if it.client_ca_file:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(it.client_ca_file)
            except OSError as exc:
                raise InputError(f"cannot use {it.client_ca_file}: {exc.strerror or exc}") from exc
        if it.client_crl_file:
            self.revoked = _serials(it.client_crl_file)
        return context


def cipher_of(name: str) -> str:
    """OpenSSL's name of a cipher of TLS 1.2 that has IANA's; "" for one of TLS 1.3. Raises InputError."""
    exchange, with_, cipher = name.removeprefix("TLS_").partition("_WITH_")
    if name in _CIPHERS_OF_13:
        return ""
    cipher = cipher.removesuffix("_SHA256") if "CHACHA20" in cipher else cipher.replace("_CBC", "")
    cipher = cipher.replace("AES_128", "AES128").replace("AES_256", "AES256").replace("_", "-")
    prefix = _EXCHANGES.get(exchange)
    if not name.startswith("TLS_") or not with_ or prefix is None or not cipher.startswith(("AES", "CHACHA20")):
        raise InputError(f"cannot use the cipher {name}: it is not known")
    return prefix + cipher


def _serials(path: str) -> frozenset[int]:
    """Of a list of revoked certificates, PEM or DER."""
    from cryptography import x509

    data = files.read_bytes(path)
    try:
        revoked = x509.load_pem_x509_crl(data) if b"-----BEGIN" in data else x509.load_der_x509_crl(data)
    except ValueError as exc:
        raise InputError(f"cannot use {path}: it is no list of revoked certificates: {exc}") from exc
    return frozenset(each.serial_number for each in revoked)
