"""Keys that are not here: a command that signs what it reads, and the ssh-agent. Blocking code, for publishers."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Mapping

from appliance.errors import InputError, UnavailableError

_COMMAND_SECONDS = 600.0  # a person may have to touch a token
_AGENT_SECONDS = 120.0
_ANSWER_MAX = 1 << 20
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14  # draft-ietf-sshm-ssh-agent, section 5.1


def sign_by_command(command: str, data: bytes, environment: Mapping[str, str]) -> bytes:
    """What ``/bin/sh -c command`` prints for ``data`` on its standard input. Raises UnavailableError.

    Its standard error and its terminal are ours, so it may ask for a PIN.
    """
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command], input=data, stdout=subprocess.PIPE, timeout=_COMMAND_SECONDS, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"cannot sign by {command!r}: no answer in {_COMMAND_SECONDS:g} s") from exc
    if done.returncode:
        raise UnavailableError(f"cannot sign by {command!r}: it ended with code {done.returncode}")
    if not done.stdout or len(done.stdout) > _ANSWER_MAX:
        raise UnavailableError(f"cannot sign by {command!r}: it printed {len(done.stdout)} bytes, not a signature")
    return done.stdout


def sign_by_agent(key: bytes, data: bytes) -> bytes:
    """The ssh-agent's signature, as SSH writes it (kind, bytes), by the key with that public blob.

    Raises InputError (no agent), UnavailableError (it refuses, or lost the key).
    """
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise InputError("cannot sign by the ssh-agent: SSH_AUTH_SOCK is not set")
    request = bytes([_SIGN_REQUEST]) + pack_string(key) + pack_string(data) + struct.pack(">I", 0)
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(_AGENT_SECONDS)
            agent.connect(path)
            agent.sendall(struct.pack(">I", len(request)) + request)
            (length,) = struct.unpack(">I", _receive(agent, 4))
            answer = _receive(agent, min(length, _ANSWER_MAX))
    except (OSError, struct.error) as exc:
        raise UnavailableError(f"cannot sign by the ssh-agent at {path}: {exc}", where=path) from exc
    if not answer or answer[0] != _SIGN_RESPONSE:
        raise UnavailableError(f"cannot sign by the ssh-agent at {path}: it does not hold the key, or refuses")
    signature, _ = unpack_string(answer[1:])
    return signature


def _receive(agent: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = agent.recv(length - len(data))
        if not piece:
            raise ConnectionError("it closed the connection")
        data += piece
    return data


def pack_string(data: bytes) -> bytes:
    """SSH's string: length and bytes (RFC 4251, section 5)."""
    return struct.pack(">I", len(data)) + data


def unpack_string(data: bytes) -> tuple[bytes, bytes]:
    """One SSH string and what follows it. Raises InputError."""
    if len(data) < 4 or len(data) - 4 < (length := struct.unpack(">I", data[:4])[0]):
        raise InputError("cannot read an SSH string: it is cut off")
    return data[4 : 4 + length], data[4 + length :]
