"""Server-sent events: the bus, told to browsers and to ``curl -N`` (WHATWG HTML, 9.2).

The id is ``LIFE-SEQUENCE``: a reader who comes back after a restart of the daemon is told, and gets all that is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from appliance.api.router import Parameter, Reply, Request, Route, Stream
from appliance.api.subjects import Subjects
from appliance.api.wire import dumps
from appliance.errors import InputError

KINDS = ("service", "unit", "update", "settings", "store")
RETRY_MILLISECONDS = 2000
BUFFER_EVENTS = 1024


def event_routes(subjects: Subjects) -> tuple[Route, ...]:
    """The one resource of this noun."""

    async def events(request: Request) -> Reply:
        after = request.headers.get("last-event-id") or request.query.get("after")
        kinds = parse_kinds(request.query.get("kind", ""))
        life = int(subjects.node().started)
        return Stream(
            _tell(subjects, life, after, kinds),
            "text/event-stream",
            endless=True,
            heartbeat=b": still here\n\n",
        )

    return (
        Route(
            method="GET",
            pattern="/v1/events",
            handler=events,
            summary="What happens, as it happens",
            answer="Server-sent events; the event's name is its kind, the data one JSON object",
            content_type="text/event-stream",
            parameters=(
                Parameter("after", "Resume after this id, as the header Last-Event-ID does"),
                Parameter("kind", "Only these kinds, separated by commas"),
            ),
        ),
    )


def parse_kinds(text: str) -> frozenset[str]:
    """Which kinds are wanted; empty means all. Raises InputError."""
    kinds = frozenset(filter(None, text.split(",")))
    if unknown := kinds.difference(KINDS):
        raise InputError(f"cannot read kind: found {', '.join(sorted(unknown))}, allowed are {', '.join(KINDS)}")
    return kinds


def resume_point(event_id: str, life: int) -> int:
    """After which sequence number to go on; 0, all that is kept, when the id is of another life, or is none of ours."""
    said_life, _, sequence = event_id.partition("-")
    if said_life == str(life) and sequence.isascii() and sequence.isdigit() and len(sequence) < 20:
        return int(sequence)
    return 0


async def _tell(
    subjects: Subjects, life: int, event_id: str | None, kinds: frozenset[str]
) -> AsyncGenerator[bytes, None]:
    after = None if event_id is None else resume_point(event_id, life)
    with subjects.bus.subscribe(after=after, size_max=BUFFER_EVENTS) as subscription:
        yield b"retry: %d\nevent: hello\ndata: %b\n\n" % (RETRY_MILLISECONDS, dumps({"life": life, "after": after}))
        expected = None if after is None else after + 1
        async for event in subscription:
            lost = event.lost
            if expected is not None and not lost and event.sequence > expected:
                lost = event.sequence - expected  # the history no longer reached back to where the reader was
            expected = None
            if lost:
                yield b"event: lost\ndata: %b\n\n" % dumps({"count": lost})
            if not kinds or event.kind in kinds:
                data = {"time": event.time, "kind": event.kind, "subject": event.subject, **event.data}
                yield b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (life, event.sequence, event.kind.encode(), dumps(data))
