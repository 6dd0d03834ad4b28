"""Every gate that can hold an update back, how it stands and when it opens. Pure; nobody should have to guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.schema import format_duration
from appliance.update.choosing import Choice
from appliance.update.picture import Gate
from appliance.update.policy import format_time
from appliance.update.settings import UpdateSettings, without_secret

ROOM_BYTES_SPARE = 16 << 20
_RULES = {  # gate -> those of choosing, and what is said when it is open
    "wave": (("wave",), "no wave is waited for"),
    "floor": (("floor", "barrier", "dead-end", "minimum"), "no version has to come first"),
    "paused": (("paused", "yanked"), "nothing is paused or withdrawn"),
}


@dataclass(frozen=True, kw_only=True)
class Stands:
    """How one of the gatekeeper's gates stands; ``reason`` empty: it is open."""

    reason: str = ""
    opens: float | None = None
    open_reason: str = ""


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
    failures: int = 0
    next_check: str = ""  # when it is tried again by itself
    denied: tuple[str, ...]
    free_bytes: int
    on_trial: bool
    trial_missing: Sequence[str]
    services_missing: Sequence[str]
    channel: str = ""  # the one that counts
    clock_problem: str = ""
    window: Stands = Stands()
    lock: Stands = Stands()
    hold: Stands = Stands()
    users: Stands = Stands()
    loop: Stands = Stands()


def explain(view: View) -> tuple[Gate, ...]:
    """In the order in which an update meets them."""
    settings = view.settings
    offer = view.choice.offer if view.choice else None
    needed = (offer.length if offer else 0) * 2 + ROOM_BYTES_SPARE
    if view.choice is None:
        channel = view.last_error or "not asked yet"
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
        _attempt(view),
        Gate(name="channel", open=offer is not None, reason=channel),
        *(_rule(name, view.choice, gates, said) for name, (gates, said) in _RULES.items()),
        _denied(view),
        Gate(name="strategy", open=settings.strategy != "manual", reason=_strategy(settings)),
        _stands("window", view.window),
        _stands("hold", view.hold),
        _stands("loop", view.loop),
        _stands("users", view.users),
        _stands("lock", view.lock),
        Gate(name="space", open=view.free_bytes >= needed,
             reason=f"{view.free_bytes >> 20} MiB free, {needed >> 20} MiB needed"),
        _services(view),
        Gate(name="health", open=not view.on_trial, reason=health),
    )  # fmt: skip


def _attempt(view: View) -> Gate:
    """What failed is tried again by itself, after a while that grows with each failure."""
    if not view.failures or not view.last_error:
        return Gate(name="attempt", open=True, reason="the last one did not fail")
    times = f"failed {view.failures} times in a row, lastly: " if view.failures > 1 else ""
    return Gate(name="attempt", open=False, reason=times + view.last_error, opens=view.next_check)


def _services(view: View) -> Gate:
    """They keep a version on trial from being blessed; a switch waits for none: the next version may be the cure."""
    missing = "; ".join(view.services_missing)
    if view.on_trial:
        return Gate(name="services", open=not missing, reason=missing or "all essential services are ready")
    said = f"{missing}; that would count on trial only" if missing else "all essential services are ready"
    return Gate(name="services", open=True, reason=said)


def _rule(name: str, choice: Choice | None, gates: Sequence[str], said: str) -> Gate:
    """Shut when nothing can be taken, and one of those is why."""
    held = [one for one in choice.held if one.gate in gates] if choice else []
    if not held:
        return Gate(name=name, open=True, reason=said)
    opens = min((one.opens for one in held if one.opens is not None), default=None)
    step = choice.offer if choice else None
    reason = held[0].reason + (f"; {step.version} is taken first" if step is not None and name == "floor" else "")
    return Gate(name=name, open=step is not None, reason=reason, opens=format_time(opens) if opens else "")


def _denied(view: View) -> Gate:
    held = [one for one in view.choice.held if one.gate == "denied"] if view.choice else []
    said = "never taken again unasked: " + ", ".join(view.denied) if view.denied else "no version is denied"
    is_open = not held or (view.choice is not None and view.choice.offer is not None)
    return Gate(name="denied", open=is_open, reason=said)


def _strategy(settings: UpdateSettings) -> str:
    if settings.strategy == "manual":
        return "manual: only when a person says update apply"
    return f"{settings.strategy}: checked every {format_duration(settings.interval)}"


def _stands(name: str, stands: Stands) -> Gate:
    opens = format_time(stands.opens) if stands.reason and stands.opens is not None else ""
    return Gate(name=name, open=not stands.reason, reason=stands.reason or stands.open_reason, opens=opens)
