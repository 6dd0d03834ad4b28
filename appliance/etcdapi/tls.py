"""TLS beneath a connection: bytes of the wire in and out, what is inside goes to the protocol's machine. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from appliance.etcdapi.door import Machine

HELLO_BYTES_MAX = 65536  # before the handshake is done
_CHUNK = 65536


class Handshakes:
    """How many are under way: each costs memory for a stranger."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.now = 0


class Tls:
    """A machine around the one that ``begin(common_name)`` makes when the handshake is done."""

    def __init__(
        self, context: ssl.SSLContext, begin: Callable[[str], Machine], handshakes: Handshakes,
        revoked: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """``revoked``: serial numbers of certificates that do not count any more."""
        self._revoked = revoked
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._begin = begin
        self._handshakes = handshakes
        self._shaking = True
        self._received = 0
        self.inner: Machine | None = None
        self.closing = handshakes.now >= handshakes.most
        handshakes.now += 1

    @property
    def patient(self) -> bool:
        """Whether there is nothing urgent to say."""
        return not (self._outgoing.pending or self.closing) and (self.inner is None or self.inner.patient)

    def waits_on(self) -> bool:
        """What is inside says so."""
        return not (self._outgoing.pending or self.closing or self.inner is None) and self.inner.waits_on()

    @property
    def established(self) -> bool:
        """Whether what is inside is."""
        return self.inner is not None and self.inner.established

    def settled(self) -> Tls:
        """It goes on by itself; so does what is inside."""
        assert self.inner is not None
        self.inner = self.inner.settled()
        return self

    def receive(self, data: bytes) -> None:
        """Bytes of the wire."""
        if self.closing:
            return
        self._incoming.write(data)
        try:
            if self._shaking:
                self._shake(len(data))
            while self.inner is not None and not self.closing:
                plain = self._tls.read(_CHUNK)
                if not plain:
                    raise ssl.SSLZeroReturnError
                self.inner.receive(plain)
                self.closing = self.inner.closing
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError:  # an end, or nonsense: what there is to say of it is in the outgoing bytes
            self.lost()

    def _shake(self, size: int) -> None:
        self._received += size
        if self._received > HELLO_BYTES_MAX:
            self.lost()
            return
        self._tls.do_handshake()
        self._shaken()
        certificate = self._tls.getpeercert() or {}
        if self._revoked and int(str(certificate.get("serialNumber", "0")), 16) in self._revoked:
            self.lost()
            return
        self.inner = self._begin(_common_name(certificate))

    def _shaken(self) -> None:
        if self._shaking:
            self._shaking = False
            self._handshakes.now -= 1

    def take(self) -> bytes:
        """What to send, enciphered."""
        if self.inner is not None:
            plain = memoryview(self.inner.take())
            while plain:
                plain = plain[self._tls.write(plain) :]
        return self._outgoing.read()

    def resume(self) -> None:
        """For what is inside."""
        if self.inner is not None:
            self.inner.resume()
            self.closing = self.closing or self.inner.closing

    def lost(self) -> None:
        """It is over."""
        self._shaken()
        self.closing = True
        if self.inner is not None:
            self.inner.lost()


def _common_name(certificate: ssl._PeerCertRetDictType) -> str:
    for attributes in certificate.get("subject", ()):
        for name, value in attributes:  # type: ignore[str-unpack]  # typeshed: a union of str and tuples
            if name == "commonName":
                return str(value)
    return ""
