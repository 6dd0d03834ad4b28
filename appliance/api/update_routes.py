"""Updates over HTTP: thin; every rule is the update room's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from appliance.api.router import Reply, Request, Route, json_answer
from appliance.api.subjects import Subjects
from appliance.update import UpdatePicture

ASKS = {  # path -> method of Update, summary, answer
    "/v1/update": ("picture", "How the update is", "Slots, channel, what is offered, what was done"),
    "/v1/update/explain": ("explain", "Why the update stands where it stands", "Every gate, open or shut, with why"),
    "/v1/update/history": ("history", "What was updated, rolled back, refused", "The finished attempts"),
}
VERBS = {
    "check": "Ask the repository what it offers",
    "download": "Fetch and verify what is offered into the other slot",
    "apply": "Switch to the version in the other slot, on trial",
    "rollback": "Go back to the version before, and deny this one",
}


def update_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The resources of this noun."""

    def ask(method: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            return json_answer(await _told(getattr(subjects.need_update(), method)()))

        return act

    def verb(method: str) -> Callable[[Request], Awaitable[Reply]]:
        async def act(request: Request) -> Reply:
            request.json().done()
            outcome = await _told(getattr(subjects.need_update(), method)())
            return json_answer(subjects.need_update().picture() if outcome is None else outcome)

        return act

    return (
        *(
            Route(
                method="GET",
                pattern=path,
                handler=ask(method),
                summary=summary,
                answer=answer,
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
                reads=False,
                control=True,
            )
            for word, summary in VERBS.items()
        ),
    )


async def _told(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value
