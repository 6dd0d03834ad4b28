"""What a caller of the store may have to tell apart; each is one of the house's five kinds."""

from __future__ import annotations

from appliance.errors import ConflictError, InputError, NotFoundError, UnavailableError


class CompactedError(ConflictError):
    """The wanted revision is no longer kept. ``compacted_revision`` is the oldest that can be read."""

    def __init__(self, message: str, compacted_revision: int) -> None:
        super().__init__(message)
        self.compacted_revision = compacted_revision


class FutureRevisionError(InputError):
    """The wanted revision does not exist yet."""


class EmptyKeyError(InputError):
    """A request names no key."""


class DuplicateKeyError(InputError):
    """One transaction puts a key twice, or puts and deletes it."""


class TooManyOperationsError(InputError):
    """A transaction is longer than ``OPERATIONS_MAX``."""


class NoSpaceError(UnavailableError):
    """The store has reached its quota: only what frees room is done, until somebody disarms the alarm."""


class TooLargeError(InputError):
    """A request is larger than ``REQUEST_BYTES_MAX``."""


class KeyNotFoundError(NotFoundError):
    """``ignore_value`` or ``ignore_lease`` asked for the value or lease of a key that does not exist."""
