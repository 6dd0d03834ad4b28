"""How a server is reached, as settings say it. Loads no network code."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass

from appliance.errors import InputError
from appliance.host import files


@dataclass(frozen=True, kw_only=True)
class Access:
    """``proxy``: a URL, "none", or empty for what the environment says."""

    proxy: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    user: str = ""
    password_file: str = ""
    token_file: str = ""

    def authorization(self) -> str:
        """The header; empty when there is none. Raises InputError, NotFoundError: a file cannot be read."""
        if self.token_file:
            return f"Bearer {_first_line(self.token_file)}"
        if self.user:
            return basic(self.user, _first_line(self.password_file) if self.password_file else "")
        return ""


@dataclass(frozen=True)
class Limits:
    """When a server is too slow: seconds without a byte, bytes a second over the window. ``piece``: read at once."""

    idle: float = 30.0
    rate_min: float = 1024.0
    window: float = 60.0
    answer: float = 60.0  # from the connection to the last header
    piece: int = 256 << 10


def basic(user: str, password: str) -> str:
    """The header that says so."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def _first_line(path: str) -> str:
    line = files.read_text(path, size_max=1 << 16).partition("\n")[0].strip()
    if not line or not line.isprintable():
        raise InputError(f"cannot use {path}: its first line is no password or token", where=path)
    return line
