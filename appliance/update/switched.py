"""The channel that a person chose on this host, in place of the one in the settings. Pure.

It counts until the settings name another channel than they did then: who said something last is heard.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from appliance.update.settings import CHANNELS


@dataclass(frozen=True)
class Switched:
    """What ``update channel`` was told."""

    channel: str = ""  # empty: the settings'
    settings: str = ""  # what the settings said then
    allow_downgrade: bool = False  # once: the newest of the channel, although it is older

    def channel_for(self, settings: str) -> str:
        """The channel that counts, when the settings name that one."""
        return self.channel if self.counts(settings) else settings

    def counts(self, settings: str) -> bool:
        """Whether a person's choice is in force."""
        return bool(self.channel) and self.settings == settings


SETTINGS = Switched()


def encode_switched(switched: Switched) -> bytes:
    """As JSON; an older and a newer version must both be able to read it."""
    return json.dumps(asdict(switched)).encode()


def decode_switched(data: bytes | None) -> Switched:
    """What cannot be read is as if nobody had chosen."""
    try:
        value = json.loads(data or b"{}")
        channel = str(value.get("channel", ""))
        if channel not in CHANNELS:
            return SETTINGS
        return Switched(channel, str(value.get("settings", "")), bool(value.get("allow_downgrade")))
    except (ValueError, AttributeError):
        return SETTINGS
