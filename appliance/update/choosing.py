"""Which of a channel's offers this host takes, or what holds each of them back. Pure.

A channel may ask for steps: a release names a floor (run at least that first), a barrier lets no older host past it.
So what is taken is the newest that may be run now; once it is blessed the choice is made again, up to the newest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from appliance.errors import ConflictError, NotFoundError, NotYetError, UntrustedError
from appliance.update.offer import Offer, is_denied, newest_first
from appliance.update.policy import NO_POLICY, Policy, format_time, place_of, wave_opens
from appliance.update.version import parse_version


@dataclass(frozen=True)
class Held:
    """One offer, the gate that is shut for it, and when that opens by itself (seconds since 1970), if it does."""

    version: str
    gate: str  # denied | yanked | minimum | floor | barrier | paused | wave | dead-end
    reason: str
    opens: float | None = None


@dataclass(frozen=True)
class Choice:
    """The offer to take, or why there is none; ``refused`` when the channel went backwards."""

    offer: Offer | None
    reason: str
    refused: bool = False
    held: tuple[Held, ...] = ()
    toward: str = ""  # the version for which the offer is only a step


@dataclass(frozen=True, kw_only=True)
class _Host:
    """What the gates are judged by."""

    running: str
    denied: Collection[tuple[str, str]]
    channel: str
    policy: Policy
    now: float
    seed: str
    wariness: float | None

    def hold(self, offer: Offer, offers: Sequence[Offer], *, waves: bool = True) -> Held | None:
        """The first gate that is shut; None when it may be taken."""
        version, policy, here = parse_version(offer.version), self.policy, parse_version(self.running)
        if why := policy.yanked_why(offer.version):
            return Held(offer.version, "yanked", f"{offer.version} was withdrawn: {why}")
        if policy.minimum and version < parse_version(policy.minimum):
            said = f"{offer.version} is older than {policy.minimum}, the least that channel {self.channel} allows"
            return Held(offer.version, "minimum", said)
        if is_denied(offer, self.denied):
            said = f"{offer.version} is denied: it was rolled back here (update apply --force {offer.version})"
            return Held(offer.version, "denied", said)
        if offer.floor and parse_version(offer.floor) > here:
            return Held(offer.version, "floor", f"{offer.version} needs {offer.floor} first")
        for other in offers:
            if other.barrier and here < parse_version(other.version) < version and not policy.yanked_why(other.version):
                return Held(offer.version, "barrier", f"{offer.version} needs {other.version} first, a barrier")
        if policy.paused or offer.paused:
            return Held(offer.version, "paused", f"{offer.version} is paused: {policy.paused or offer.paused}")
        hurried = bool(policy.minimum) and here < parse_version(policy.minimum)
        return self._wave(offer) if waves and not hurried else None

    def _wave(self, offer: Offer) -> Held | None:
        place = place_of(self.seed, offer.version) if self.wariness is None else self.wariness
        opens = wave_opens(offer.waves, place)
        if opens is None:
            said = f"{offer.version} is for {offer.waves[-1].fraction:.0%} of all hosts so far, and not for this one"
            return Held(offer.version, "wave", said)
        if opens > self.now:
            return Held(offer.version, "wave", f"{offer.version} comes here at {format_time(opens)}, by waves", opens)
        return None


def choose(
    offers: Iterable[Offer],
    *,
    running: str,
    denied: Collection[tuple[str, str]],
    channel: str,
    policy: Policy = NO_POLICY,
    now: float = 0.0,
    seed: str = "",
    wariness: float | None = None,
    downgrade: bool = False,
    switched: bool = False,
) -> Choice:
    """The newest offer that no gate holds; above the running version, unless a ``downgrade`` was asked for.

    ``switched``: a person chose the channel, so that it holds nothing newer is no fault of the repository.
    """
    host = _Host(
        running=running, denied=denied, channel=channel, policy=policy, now=now, seed=seed, wariness=wariness
    )  # fmt: skip
    known = newest_first(offers)
    here = parse_version(running)
    if why := policy.dead_end_why(running):
        said = f"{running} is a dead end, no update leads on from it: {why}"
        return Choice(None, said, held=(Held(running, "dead-end", said),))
    if not known:
        return Choice(None, f"channel {channel} offers nothing for this host")
    held: list[Held] = []
    for offer in known:
        version = parse_version(offer.version)
        if version == here or (version < here and not downgrade):
            break
        if (found := host.hold(offer, known)) is None:
            steps = [one.version for one in held if one.gate in ("floor", "barrier")]
            return Choice(offer, _reasons(held), held=tuple(held), toward=steps[0] if steps else "")
        held.append(found)
    if held:
        return Choice(None, _reasons(held), held=tuple(held))
    newest = known[0].version
    withdrawn = policy.yanked_why(running)
    if parse_version(newest) < here:
        aside = f"; the running {running} was withdrawn: {withdrawn}" if withdrawn else ""
        return Choice(
            None,
            f"cannot take {newest} of channel {channel}: it is older than the running {running}, and nobody asked for "
            f"a downgrade (update channel {channel} --allow-downgrade){aside}",
            refused=not switched and not withdrawn,
        )
    if withdrawn:
        return Choice(None, f"the running {running} was withdrawn: {withdrawn}; {channel} holds nothing newer yet")
    return Choice(None, f"{running} is the newest in channel {channel}")


def _reasons(held: Sequence[Held]) -> str:
    """The first few, causes before what follows from them: a host that is far behind waits for one step."""
    causes = sorted(held, key=lambda one: one.gate in ("floor", "barrier"))
    said = [one.reason for one in causes[:3]]
    return "; ".join([*said, f"and {len(held) - 3} more"] if len(held) > 3 else said)


def choose_asked(
    offers: Iterable[Offer],
    wanted: str,
    *,
    running: str,
    denied: Collection[tuple[str, str]],
    channel: str,
    force: bool,
    policy: Policy = NO_POLICY,
) -> Offer:
    """The offer of the version that a person asked for, or of the step that must come before it.

    No wave is waited for. ``force`` takes a denied, paused, withdrawn or older one too, and no steps. Raises
    NotFoundError, UntrustedError (older, denied, withdrawn), ConflictError (no step leads there, running already),
    NotYetError (paused).
    """
    version, here = parse_version(wanted), parse_version(running)
    known = newest_first(offers)
    found = [offer for offer in known if parse_version(offer.version) == version]
    if not found:
        raise NotFoundError(f"cannot apply {wanted}: channel {channel} does not offer it")
    offer = found[0]
    if policy.minimum and version < parse_version(policy.minimum):
        raise UntrustedError(f"cannot apply {wanted}: channel {channel} allows nothing older than {policy.minimum}")
    if force:
        return offer
    if version == here:
        raise ConflictError(f"cannot apply {wanted}: it is running already")
    if version < here:
        raise UntrustedError(f"cannot apply {wanted}: it is older than the running {running} (--force takes it anyway)")
    if why := policy.dead_end_why(running):
        raise ConflictError(f"cannot apply {wanted}: {running} is a dead end: {why} (--force tries it anyway)")
    host = _Host(running=running, denied=denied, channel=channel, policy=policy, now=0.0, seed="", wariness=None)
    first: Held | None = None
    for step in known:
        if here < parse_version(step.version) <= version:
            held = host.hold(step, known, waves=False)
            if held is None:
                return step
            first = first or held
            if first.gate not in ("floor", "barrier"):
                break  # it is the wanted one itself that may not be taken: no step helps
    assert first is not None
    if first.gate in ("denied", "yanked"):
        said = "it is denied, it was rolled back here" if first.gate == "denied" else first.reason
        raise UntrustedError(f"cannot apply {wanted}: {said} (--force takes it anyway)")
    if first.gate == "paused":
        raise NotYetError(f"cannot apply {wanted}: {first.reason} (--force takes it anyway)")
    raise ConflictError(f"cannot apply {wanted}: {first.reason}, and no step that may be taken leads there")
