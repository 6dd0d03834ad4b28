"""What all runners stand on, and what a group of processes can do for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from appliance.host.bpf import Program
from appliance.host.cgroups import CgroupRoot
from appliance.host.listening import Call
from appliance.host.processes import Processes
from appliance.units.alarms import Alarms
from appliance.units.journal import Journal
from appliance.units.service_section import ServiceSection
from appliance.units.unit_file import Unit, UnitDocument

if TYPE_CHECKING:
    from appliance.host.holder import Holder
    from appliance.units.runner import Runner


class Group(Protocol):
    """What holds together everything that one start of a unit becomes: a cgroup, or a session with marks."""

    kind: str
    path: str | None

    def lead(self, pid: int, start_ticks: int) -> None: ...  # noqa: D102
    def has(self, pid: int) -> bool: ...  # noqa: D102
    def pids(self) -> list[int]: ...  # noqa: D102
    def oom_killed(self) -> bool: ...  # noqa: D102
    def empty(self) -> bool: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102
    def signal(self, number: int, *, but: tuple[int, ...] = ()) -> None: ...  # noqa: D102
    def when_empty(self, callback: Callable[[], None]) -> Callable[[], None]: ...  # noqa: D102
    def clear(self, callback: Callable[[], None]) -> None: ...  # noqa: D102
    def renew(self) -> None: ...  # noqa: D102
    def attach(self, programs: tuple[Program, ...]) -> None: ...  # noqa: D102
    def limit(self, values: tuple[tuple[str, str], ...]) -> None: ...  # noqa: D102
    def remove(self) -> None: ...  # noqa: D102


def _no_descriptors(unit: Unit) -> tuple[tuple[str, int], ...]:
    return ()


def _no_call(unit: Unit) -> Call | None:
    return None


def _no_words(document: UnitDocument, private: str) -> tuple[str, ...]:
    return ()


def _no_directory(unit: Unit) -> str:
    return ""


def _no_values(document: UnitDocument) -> tuple[tuple[str, str], ...]:
    return ()


def _no_programs(document: UnitDocument) -> tuple[Program, ...]:
    return ()


def _plain_service(unit: Unit) -> ServiceSection:
    return unit.service


def _not_delegated(document: UnitDocument, uid: int | None, gid: int | None) -> tuple[tuple[str, str], ...]:
    return ()


@dataclass(kw_only=True)
class Ground:
    """Shared by all runners of one life of the daemon."""

    processes: Processes
    cgroups: CgroupRoot | None
    alarms: Alarms
    run_directory: str
    journal: Callable[[Unit], Journal]
    boot_id: str
    is_wanted: Callable[[str], bool]
    on_turn: Callable[[Runner], None]
    on_trouble: Callable[[str, str], None]  # a unit's name, and what could not be done about it
    descriptors_of: Callable[[Unit], tuple[tuple[str, int], ...]] = _no_descriptors  # name and descriptor: its sockets
    spawn_words: Callable[[UnitDocument, str], tuple[str, ...]] = _no_words  # fences, as options of spawn
    private_directory: Callable[[Unit], str] = _no_directory  # where private_tmp lies; empty: it has none
    cgroup_values: Callable[[UnitDocument], tuple[tuple[str, str], ...]] = _no_values  # file in the cgroup, value
    delegated: Callable[[UnitDocument, int | None, int | None], tuple[tuple[str, str], ...]] = _not_delegated
    programs_of: Callable[[UnitDocument], tuple[Program, ...]] = _no_programs  # in the kernel, of its cgroup
    service_of: Callable[[Unit], ServiceSection] = _plain_service  # with the user that a dynamic one really is
    call_of: Callable[[Unit], Call | None] = _no_call  # the connection that its process serves
    holder: Holder | None = None  # keeps descriptors over our death
    below: Callable[[str], str] = str  # a path of the host, below our root
