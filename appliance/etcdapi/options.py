"""What of etcd's flags shapes the API. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.store import LIMITS, Limits

if TYPE_CHECKING:
    from appliance.etcdapi.tokens import Tokens

_OVERHEAD_BYTES = 512 << 10  # etcd's grpcOverheadBytes


@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """``tokens`` makes who gives them out; None: simple ones, void ``token_seconds`` after their last use."""

    limits: Limits = LIMITS
    token_seconds: float = 300.0
    tokens: Callable[[], Tokens] | None = None
    bcrypt_cost: int = 10
    cors: frozenset[str] = frozenset()  # origins whose pages may ask; "*" in it: all
    streams: int = 0  # at once on one connection; 0: as many as we can
    progress_seconds: float = 600.0  # between two words to a watch that wants to hear how far it is

    @property
    def message_bytes(self) -> int:
        """The longest message that is read at all."""
        return self.limits.request_bytes + _OVERHEAD_BYTES


DEFAULTS = ApiOptions()


def json_web_tokens(method: str, *, public_key: str, private_key: str, seconds: float) -> Callable[[], Tokens]:
    """For ``tokens``; see JwtTokens. Raises InputError at once."""
    from appliance.etcdapi.jwt import JwtTokens  # brings cryptography

    tokens = JwtTokens(method, public_key=public_key, private_key=private_key, seconds=seconds)
    return lambda: tokens
