"""Control API on the unix socket, status endpoint and page on loopback TCP: the same resources, two doors.

``Api(subjects)`` has two service mains, ``control`` and ``status``; ``app.py`` hands them to the supervisor.
"""

from __future__ import annotations

from appliance.api.service import Api
from appliance.api.status_routes import status_picture
from appliance.api.subjects import NodePicture, SettingsPicture, StatusSettings, Subjects

__all__ = ["Api", "NodePicture", "SettingsPicture", "StatusSettings", "Subjects", "status_picture"]
