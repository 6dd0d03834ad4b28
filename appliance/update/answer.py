"""What the worker said, as the daemon reads it: no more is believed of it than of a stranger."""

from __future__ import annotations

import json
from typing import Any

from appliance.errors import ApplianceError, InputError, UnavailableError


def parse_answer(stdout: bytes) -> dict[str, Any]:
    """The worker's one JSON object. Raises the error in it, InputError when there is none."""
    lines = stdout.decode(errors="replace").strip().splitlines()
    try:
        answer = dict(json.loads(lines[-1]))
        event = answer["event"]
    except (IndexError, ValueError, KeyError, TypeError) as exc:
        raise InputError(f"cannot read the update worker's answer: {stdout[-200:]!r}") from exc
    if event == "error":
        kinds = {kind.kind: kind for kind in _all_kinds(ApplianceError)}
        raise kinds.get(str(answer.get("kind")), UnavailableError)(
            str(answer.get("message", "")), where=str(answer.get("where", ""))
        )
    return answer


def _all_kinds(kind: type[ApplianceError]) -> list[type[ApplianceError]]:
    return [kind, *(deeper for sub in kind.__subclasses__() for deeper in _all_kinds(sub))]
