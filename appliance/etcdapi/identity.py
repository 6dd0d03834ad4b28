"""Who we say we are. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """What every answer's header says of us: a cluster of one member, which leads it."""

    cluster_id: int
    member_id: int
    name: str = "default"
    client_urls: tuple[str, ...] = ()
    peer_urls: tuple[str, ...] = ()
    raft_term: int = 2


def identity_of(name: str, *, client_urls: tuple[str, ...] = (), peer_urls: tuple[str, ...] = ()) -> Identity:
    """Numbers that stay the same for as long as the name does."""
    member = hashlib.sha256(b"member " + name.encode()).digest()
    cluster = hashlib.sha256(b"cluster " + name.encode()).digest()
    return Identity(int.from_bytes(cluster[:8], "big"), int.from_bytes(member[:8], "big"), name, client_urls, peer_urls)


def identity_as_etcd(
    name: str, *, client_urls: tuple[str, ...], peer_urls: tuple[str, ...], token: str, first_peer_urls: tuple[str, ...]
) -> Identity:
    """Numbers that an etcd gives itself at its first start with these flags (membership/member.go, cluster.go)."""
    member = _sha1(("".join(sorted(first_peer_urls)) + token).encode())
    return Identity(int.from_bytes(_sha1(member), "big"), int.from_bytes(member, "big"), name, client_urls, peer_urls)


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()[:8]
