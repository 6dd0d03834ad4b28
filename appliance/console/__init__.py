"""The screen of a machine of our own: how it is, on its first console and on serial lines; and a way to mend it there.

There is no shell behind it. What it can do is what the control API can, and a little that needs no daemon that is well.
"""

from __future__ import annotations

from appliance.console.console import Console
from appliance.console.recovery import Acts
from appliance.console.screen import ScreenPicture, rows_of, unit_rows

__all__ = ["Acts", "Console", "ScreenPicture", "rows_of", "unit_rows"]
