"""Changes to a channel's rules and to one release in it, made in memory; ``publishing.change`` signs them.

Everything here is refused when no host could follow it: rules are read by machines that nobody can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from appliance.errors import ConflictError, InputError, NotFoundError
from appliance.release.publishing import Change
from appliance.release.repository import Contents
from appliance.release.staging import check_floor
from appliance.update import PRODUCT, Wave, format_time, parse_time, parse_version, parse_waves, waves_to_json

_PROFILE = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


def pause(channel: str, version: str, why: str, product: str = PRODUCT) -> Change:
    """Nobody takes the release (all of the channel when ``version`` is empty) until ``resume``."""

    def how(contents: Contents) -> set[str]:
        if version:
            for custom in customs(contents, channel, version, product):
                custom["paused"] = why or "by its publisher"
        else:
            contents.set_policy(
                channel, replace(contents.policy(channel, product), paused=why or "by its publisher"), product
            )
        return {channel}

    return how


def resume(channel: str, version: str, product: str = PRODUCT) -> Change:
    """The end of a pause. Raises ConflictError: there is none."""

    def how(contents: Contents) -> set[str]:
        policy = contents.policy(channel, product)
        if version:
            found = [custom for custom in customs(contents, channel, version, product) if custom.pop("paused", "")]
        else:
            found = [{"paused": policy.paused}] if policy.paused else []
            contents.set_policy(channel, replace(policy, paused=""), product)
        if not found:
            raise ConflictError(f"cannot resume {version or channel}: it is not paused")
        return {channel}

    return how


def set_waves(
    channel: str, version: str, waves: Sequence[Wave], now: float, product: str = PRODUCT, *, anew: bool = False
) -> Change:
    """New waves for a release; none: it is for everybody at once. Raises ConflictError: fewer than are in already.

    ``anew``: all the same; hosts that were in and have not taken it yet wait again.
    """

    def how(contents: Contents) -> set[str]:
        wanted = parse_waves(waves_to_json(waves))
        for custom in customs(contents, channel, version, product):
            before, after = _reached(parse_waves(custom.get("waves")), now), _reached(wanted, now)
            if after < before and not anew:
                raise ConflictError(
                    f"cannot set waves of {version}: it has reached {before:.0%} of all hosts, these would reach "
                    f"{after:.0%} by now, and who is in stays in (release pause stops it for all; --anew begins again)"
                )
            custom.pop("waves", None)
            if wanted:
                custom["waves"] = waves_to_json(wanted)
        return {channel}

    return how


def _reached(waves: Sequence[Wave], now: float) -> float:
    if not waves:
        return 1.0
    return max((wave.fraction for wave in waves if wave.start <= now), default=0.0)


def read_waves(said: Sequence[str], over: float, now: float) -> tuple[Wave, ...]:
    """``START=FRACTION`` each (a time, ``now``, ``+4h``; 0.05 or 5%), or a usual profile ``over`` so many seconds."""
    if over:
        return tuple(
            Wave(now + over * number / (len(_PROFILE) - 1), fraction) for number, fraction in enumerate(_PROFILE)
        )
    waves = []
    for one in said:
        start, found, fraction = one.rpartition("=")
        if not found:
            raise InputError(f"cannot read wave {one!r}: it must look like 2026-11-22T08:00:00Z=5% or +4h=0.05")
        try:
            share = float(fraction.removesuffix("%")) / (100 if fraction.endswith("%") else 1)
        except ValueError as exc:
            raise InputError(f"cannot read wave {one!r}: {fraction!r} is no fraction") from exc
        waves.append({"start": format_time(_start_of(start, now)), "fraction": share})
    return parse_waves(waves)


def _start_of(text: str, now: float) -> float:
    from appliance.schema import parse_duration

    if text == "now":
        return now
    return now + parse_duration(text[1:]) if text.startswith("+") else parse_time(text)


def yank(channel: str, version: str, why: str, product: str = PRODUCT) -> Change:
    """Nobody takes it any more; who runs it is told, and goes on to the next. Without ``why``: take that back."""

    def how(contents: Contents) -> set[str]:
        policy = contents.policy(channel, product)
        kept = _without(policy.yanked, version)
        if why:
            customs(contents, channel, version, product)
            kept[version] = why
        elif len(kept) == len(policy.yanked):
            raise NotFoundError(f"cannot offer {version} again: it was not withdrawn from {channel}")
        else:
            customs(contents, channel, version, product)  # it may have been pruned
        contents.set_policy(channel, replace(policy, yanked=kept), product)
        return {channel}

    return how


def dead_end(channel: str, version: str, message: str, product: str = PRODUCT) -> Change:
    """Who runs it is offered nothing but the message. Without one: take that back."""

    def how(contents: Contents) -> set[str]:
        policy = contents.policy(channel, product)
        kept = _without(policy.dead_ends, version)
        if message:
            parse_version(version)
            kept[version] = message
        elif len(kept) == len(policy.dead_ends):
            raise NotFoundError(f"cannot open {version}: it is no dead end in {channel}")
        contents.set_policy(channel, replace(policy, dead_ends=kept), product)
        return {channel}

    return how


def barrier(channel: str, version: str, product: str = PRODUCT, *, on: bool) -> Change:
    """Every older host must run this version before a newer one."""

    def how(contents: Contents) -> set[str]:
        if on and (why := contents.policy(channel, product).yanked_why(version)):
            raise ConflictError(f"cannot make {version} a barrier: it was withdrawn ({why})")
        for custom in customs(contents, channel, version, product):
            custom.pop("barrier", None)
            if on:
                custom["barrier"] = True
        return {channel}

    return how


def floor(channel: str, version: str, least: str, product: str = PRODUCT) -> Change:
    """Hosts below ``least`` must pass it first; empty: no floor. Raises InputError: nothing lies between."""

    def how(contents: Contents) -> set[str]:
        found = customs(contents, channel, version, product)
        if least:
            check_floor(version, least)
            steps = [
                one["version"] for one in contents.releases()
                if (one["channel"], one["product"]) == (channel, product) and not one["yanked"]
                and parse_version(least) <= parse_version(one["version"]) < parse_version(version)
            ]  # fmt: skip
            if not steps:
                raise InputError(f"cannot set floor {least} for {version}: {channel} holds no version to pass it with")
        for custom in found:
            custom.pop("floor", None)
            if least:
                custom["floor"] = least
        return {channel}

    return how


def minimum(channel: str, least: str, product: str = PRODUCT) -> Change:
    """No host takes anything older, asked or not; who runs something older does not wait for waves. Empty: none."""

    def how(contents: Contents) -> set[str]:
        if least:
            wanted = parse_version(least)
            offered = [
                one
                for one in contents.releases()
                if (one["channel"], one["product"]) == (channel, product) and not one["yanked"]
            ]
            if not any(parse_version(one["version"]) >= wanted for one in offered):
                raise InputError(
                    f"cannot set minimum {least}: {channel} holds nothing so new, and no host could follow"
                )
        contents.set_policy(channel, replace(contents.policy(channel, product), minimum=least), product)
        return {channel}

    return how


def customs(contents: Contents, channel: str, version: str, product: str = PRODUCT) -> list[dict[str, Any]]:
    """The signed description of that release, one per architecture. Raises NotFoundError, InputError."""
    contents.policy(channel, product)
    wanted = parse_version(version)
    found = [
        contents.channels[channel].targets[one["path"]].unrecognized_fields["custom"]
        for one in contents.releases()
        if (one["channel"], one["product"]) == (channel, product) and parse_version(one["version"]) == wanted
    ]
    if not found:
        raise NotFoundError(f"cannot change {version}: {channel} holds no such release")
    return found


def _without(versions: Any, version: str) -> dict[str, str]:
    wanted = parse_version(version)
    return {name: why for name, why in versions.items() if parse_version(name) != wanted}
