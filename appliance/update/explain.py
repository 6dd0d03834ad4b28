"""Every gate that can hold an update back, and how it stands. Pure; nobody should have to guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.schema import format_duration
from appliance.update.choosing import Choice
from appliance.update.picture import Gate
from appliance.update.settings import UpdateSettings, without_secret

ROOM_BYTES_SPARE = 16 << 20


@dataclass(frozen=True, kw_only=True)
class View:
    """What the gates are judged by."""

    settings: UpdateSettings
    trust_root: str
    has_trust_root: bool
    slots_problem: str  # why the slots cannot be used; empty when they can
    store_problem: str
    choice: Choice | None  # of the last check
    last_error: str
    denied: tuple[str, ...]
    free_bytes: int
    on_trial: bool
    trial_missing: Sequence[str]
    services_missing: Sequence[str]
    channel: str = ""  # the one that counts
    clock_problem: str = ""


def explain(view: View) -> tuple[Gate, ...]:
    """In the order in which an update meets them."""
    settings = view.settings
    offer = view.choice.offer if view.choice else None
    needed = (offer.length if offer else 0) * 2 + ROOM_BYTES_SPARE
    if view.last_error:
        channel = view.last_error
    elif view.choice is None:
        channel = "not asked yet"
    else:
        name = view.channel or settings.channel
        channel = view.choice.reason or f"{name} offers {offer.version if offer else 'nothing'}"
    if view.on_trial:
        health = "on trial; missing: " + ("; ".join(view.trial_missing) or "only the settle time")
    else:
        health = (
            f"a new version must be well for {format_duration(settings.health.settle)} "
            f"within {format_duration(settings.health.deadline)}, in {settings.health.tries} starts"
        )
    return (
        Gate(name="configured", open=bool(settings.repository),
             reason=without_secret(settings.repository) or "no repository is set ([update] repository)"),
        Gate(name="trust", open=view.has_trust_root,
             reason=view.trust_root if view.has_trust_root else f"there is no trust root {view.trust_root}"),
        Gate(name="clock", open=True, reason=view.clock_problem or "no earlier than what was signed"),
        Gate(name="slots", open=not view.slots_problem, reason=view.slots_problem or "both usable"),
        Gate(name="store", open=not view.store_problem, reason=view.store_problem or "answers"),
        Gate(name="channel", open=offer is not None, reason=channel),
        Gate(name="denied", open=True,
             reason="never taken again unasked: " + ", ".join(view.denied) if view.denied else "no version is denied"),
        Gate(name="strategy", open=settings.strategy == "immediate",
             reason="immediate: checked every " + format_duration(settings.interval)
             if settings.strategy == "immediate" else "manual: only when a person says update apply"),
        Gate(name="space", open=view.free_bytes >= needed,
             reason=f"{view.free_bytes >> 20} MiB free, {needed >> 20} MiB needed"),
        Gate(name="services", open=not view.services_missing,
             reason="; ".join(view.services_missing) or "all essential services are ready"),
        Gate(name="health", open=not view.on_trial, reason=health),
    )  # fmt: skip
