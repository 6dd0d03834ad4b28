"""The publisher's side: keys, a TUF repository of static files, releases and channels. Loaded only by ``release``."""

from appliance.release.committing import Expiry
from appliance.release.keys import KeyRing
from appliance.release.publishing import publish, rotate
from appliance.release.repository import CHANNELS, ROLES, create, listing
from appliance.release.staging import Staged, stage_file, stage_promotion, staged_releases
from appliance.release.verifying import verify

__all__ = [
    "CHANNELS",
    "ROLES",
    "Expiry",
    "KeyRing",
    "Staged",
    "create",
    "listing",
    "publish",
    "rotate",
    "stage_file",
    "stage_promotion",
    "staged_releases",
    "verify",
]
