"""Five kinds of error, named by who acts next.

Messages read "cannot VERB OBJECT: CAUSE", with paths and numbers. A bug is an AssertionError and no room catches it;
only the supervisor catches Exception, for the service it runs, and for work that is given to its ``contain``.
"""

from __future__ import annotations


class ApplianceError(Exception):
    """Any fault that a caller may be told about; ``kind`` is its stable name on the wire."""

    kind = "error"
    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where


class InputError(ApplianceError):
    """Whoever wrote the file, command or request mends it."""

    kind = "input"
    exit_code = 2
    http_status = 400


class NotFoundError(InputError):
    """The named thing does not exist."""

    kind = "not-found"
    exit_code = 4
    http_status = 404


class ConflictError(ApplianceError):
    """The world changed, or the thing exists: the caller decides anew."""

    kind = "conflict"
    exit_code = 7
    http_status = 409


class UnavailableError(ApplianceError):
    """Try later: network, full disk, not ready yet."""

    kind = "unavailable"
    exit_code = 1
    http_status = 503


class NotYetError(UnavailableError):
    """Waiting on a gate (a window, a wave, a hold, a health check); ``explain`` says which."""

    kind = "not-yet"
    exit_code = 6


class NotRunningError(UnavailableError):
    """No appliance answers on this root, or the unit is not active."""

    kind = "not-running"
    exit_code = 3


class UntrustedError(ApplianceError):
    """Refuse and keep what we have: signature, rollback, expiry, permission."""

    kind = "untrusted"
    exit_code = 5
    http_status = 403


class CorruptError(ApplianceError):
    """Nobody retries: the room stops and says which byte."""

    kind = "corrupt"
    exit_code = 1
    http_status = 500
