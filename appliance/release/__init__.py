"""The publisher's side: keys, a TUF repository of static files, releases and channels. Loaded only by ``release``."""

from appliance.release.ceremony import export_payload, import_payload, roles_of, sign_payload
from appliance.release.committing import Expiry, publishing_time
from appliance.release.exporting import export
from appliance.release.keys import KeyRing
from appliance.release.pruning import prune
from appliance.release.publishing import add_role_key, change, publish, refresh, revoke_role_key, rotate
from appliance.release.repository import CHANNELS, ROLES, create, listing, load
from appliance.release.rules import barrier, dead_end, floor, minimum, pause, read_waves, resume, set_waves, yank
from appliance.release.staging import Staged, stage_file, stage_promotion, staged_releases
from appliance.release.verifying import outlook, verify

__all__ = [
    "CHANNELS",
    "ROLES",
    "Expiry",
    "KeyRing",
    "Staged",
    "add_role_key",
    "barrier",
    "change",
    "create",
    "dead_end",
    "export",
    "export_payload",
    "floor",
    "import_payload",
    "listing",
    "load",
    "minimum",
    "outlook",
    "pause",
    "prune",
    "publish",
    "publishing_time",
    "read_waves",
    "refresh",
    "resume",
    "revoke_role_key",
    "roles_of",
    "rotate",
    "set_waves",
    "sign_payload",
    "stage_file",
    "stage_promotion",
    "staged_releases",
    "verify",
    "yank",
]
