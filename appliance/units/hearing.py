"""What a unit's notices (sd_notify(3)) do to it."""

from __future__ import annotations

from appliance.host import descriptors
from appliance.units.fd_store import FdStore
from appliance.units.life import Life
from appliance.units.notices import Notice, parse_notice_untrusted
from appliance.units.phases import Phase, Turn


def hear(life: Life, store: FdStore, sender: int, data: bytes, fds: list[int]) -> Notice | None:
    """Act on one message; None: it does not count. The descriptors are taken over."""
    if not _may_speak(life, sender):
        descriptors.close_all(fds)
        return None
    notice = parse_notice_untrusted(data)
    if notice.fd_store and fds:
        store.add(notice.fd_name, fds, most=life.service.fd_store_max, poll=notice.fd_poll)
    else:
        descriptors.close_all(fds)  # this answers a barrier, too
        if notice.fd_remove:
            store.remove(notice.fd_name)
    if notice.main_pid is not None:
        life.follow(notice.main_pid)
    if notice.extend_seconds is not None:
        life.extend(notice.extend_seconds)
    if notice.watchdog:
        life.upkeep.heard()
    if notice.watchdog_seconds is not None:
        life.upkeep.watch(notice.watchdog_seconds)
    if notice.watchdog_trigger:
        life.upkeep.silent("it says itself that it is unwell (WATCHDOG=trigger)")
    if notice.stopping:
        life.leave()
    elif notice.reloading and not notice.ready:
        _reloads(life)
    elif notice.ready:
        _is_ready(life)
    return notice


def _may_speak(life: Life, sender: int) -> bool:
    if life.group is None:
        return False
    mains = {child.pid for child in (life.main,) if child is not None}
    controls = {child.pid for child in (life.control,) if child is not None}
    match life.service.notices_from():
        case "main":
            return sender in mains
        case "exec":
            return sender in mains | controls
        case "all":
            return life.group.has(sender)
        case _:
            return False


def _reloads(life: Life) -> None:
    if life.phase is Phase.RUN:
        life.reload("it says that it reloads", itself=True)
    elif life.phase is Phase.RELOAD and not life.service.reload:
        life.reloads_itself = True


def _is_ready(life: Life) -> None:
    if life.phase is Phase.START and life.service.is_notify:
        life.turn(Turn.DONE, f"it says it is ready, pid {life.main.pid if life.main else 0}")
    elif life.phase is Phase.RELOAD and life.reloads_itself and life.control is None:
        life.turn(Turn.DONE, "it says it is ready again")
