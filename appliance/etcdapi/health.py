"""How we are, for those who only ask that: gRPC's health service and the words of ``/health``. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable

from appliance.errors import ApplianceError
from appliance.etcdapi.grpc import Call, Code, Method, RefusedError, Streaming, Unary
from appliance.migration import read_fields
from appliance.store import Store

_SERVING, _SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x03"  # HealthCheckResponse.status
_OF_STATE = {"nospace": "NOSPACE", "full": "NOSPACE", "corrupt": "CORRUPT"}


def health_methods() -> dict[bytes, Method]:
    """The service grpc.health.v1.Health. As an etcd's it knows one service, the nameless whole, and that it serves."""
    prefix = b"/grpc.health.v1.Health/"
    return {prefix + b"Check": Unary(_check), prefix + b"Watch": Streaming(_Watch)}


def _check(call: Call, message: bytes) -> bytes:
    if _service(message):
        raise RefusedError(Code.NOT_FOUND, "unknown service")
    return _SERVING


def _service(message: bytes) -> bytes:
    try:
        name = dict(read_fields(message)).get(1, b"")
    except ValueError as exc:
        raise RefusedError(Code.INTERNAL, f"grpc: error unmarshalling request: {exc}") from exc
    return name if isinstance(name, bytes) else b""


class _Watch:
    """It hears how we are once: that never changes while we answer at all."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._told = False

    def message(self, message: bytes) -> None:
        """Which service."""
        try:
            service = _service(message)
        except ApplianceError as exc:
            self._call.refuse(Code.INTERNAL, exc.message)
            return
        if not self._told:
            self._told = True
            self._call.send(_SERVICE_UNKNOWN if service else _SERVING)

    def half_close(self) -> None:
        """It listens on."""

    def reset(self) -> None:
        """Nothing is held."""

    def drained(self) -> None:
        """Nothing was held back."""


def health_of(store: Store, excluded: Callable[[str], bool]) -> tuple[bool, str]:
    """(whether all is well, what ``/health`` says); an alarm that the asker excludes does not count."""
    status = store.status()
    alarm = _OF_STATE.get(status.state, "")
    good = status.state == "open" or (alarm != "" and excluded(alarm))
    if good or alarm:
        return good, f'{{"health":"{str(good).lower()}"}}' + "\n" * (not good)  # word for word: tests look for it
    return False, json.dumps({"health": "false", "reason": status.problem}, separators=(",", ":")) + "\n"
