"""Updates over HTTP: thin; every rule is the update room's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from appliance.api.router import Parameter, Reply, Request, Route, json_answer
from appliance.api.subjects import Subjects
from appliance.update import UpdatePicture

ASKS = {  # path -> method of Update, summary, answer
    "/v1/update": ("picture", "How the update is", "Slots, channel, what is offered, what was done"),
    "/v1/update/explain": ("explain", "Why the update stands where it stands", "Every gate, open or shut, with why"),
    "/v1/update/history": ("history", "What was updated, rolled back, refused", "The finished attempts"),
}
VERBS = {
    "check": "Ask the repository what it offers",
    "download": "Fetch and verify what is offered",
    "apply": "Begin to fetch, write to the other slot, switch; the history tells the end, by the id in `request`",
    "channel": "Take another channel from now on, and ask what it offers; `channel` empty: the one in the settings",
    "rollback": "Begin to go back to the version before, and deny this one",
    "hold": "Hold updates back for a `duration` (24h), with a reason; `name` tells holds apart",
    "unhold": "End the hold of that `name`, or all that people asked for",
}
_PRODUCT = {"product": {"type": "string"}}  # a bundle's name; empty: this appliance
BODIES: Mapping[str, Mapping[str, Mapping[str, str]]] = {  # verb -> its fields
    "download": {"version": {"type": "string"}},
    "apply": {
        "version": {"type": "string"}, "force": {"type": "boolean"}, "source": {"type": "string"},
        "now": {"type": "boolean"},
    },
    "channel": {"channel": {"type": "string"}, "allow_downgrade": {"type": "boolean"}},
    "hold": {"duration": {"type": "string"}, "why": {"type": "string"}, "name": {"type": "string"}},
    "unhold": {"name": {"type": "string"}},
}  # fmt: skip


def update_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun."""

    def ask(method: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            update = subjects.need_update(request.query.get("product", ""))
            return json_answer(await _told(getattr(update, method)()))

        return act

    def verb(method: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            asked = request.json()
            update = subjects.need_update(asked.text("product", length_max=64))
            fields = {
                name: asked.flag(name) if kind["type"] == "boolean" else asked.text(name, length_max=4096)
                for name, kind in BODIES.get(method, {}).items()
            }
            asked.done()
            outcome = await _told(getattr(update, method)(**fields))
            return json_answer(update.picture() if outcome is None else outcome)

        return act

    return (
        *(
            Route(
                method="GET",
                pattern=path,
                handler=ask(method),
                summary=summary,
                answer=answer,
                parameters=(Parameter("product", "A bundle's name; without it: this appliance"),),
                schema=UpdatePicture if method == "picture" else None,
            )
            for path, (method, summary, answer) in ASKS.items()
        ),
        *(
            Route(
                method="POST",
                pattern=f"/v1/update/{word}",
                handler=verb(word),
                summary=summary,
                answer="What came of it",
                body={
                    "type": "object",
                    "properties": {**BODIES.get(word, {}), **_PRODUCT},
                    **({"required": ["why"]} if word == "hold" else {}),
                },
                reads=False,
                control=True,
            )
            for word, summary in VERBS.items()
        ),
    )


async def _told(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value
