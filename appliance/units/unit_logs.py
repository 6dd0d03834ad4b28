"""The logs of all units of this host, and the kernel's: which journal is whose, how much of each is kept, who reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from fnmatch import fnmatchcase

from appliance.errors import ApplianceError
from appliance.host import clock, files
from appliance.host.layout import Layout
from appliance.host.poller import Poller
from appliance.units.journal import Growth, Journal, LogLimits
from appliance.units.kernel_log import KernelRecorder
from appliance.units.log_following import read_journal, read_logs
from appliance.units.log_query import Entry, LogQuery
from appliance.units.log_reading import DIRECTORY, KERNEL
from appliance.units.log_section import LogsSection, parse_rate
from appliance.units.pictures import LogLine, UnitsSettings
from appliance.units.register import Register
from appliance.units.unit_file import Unit
from appliance.units.unit_section import plain_name


class UnitLogs:
    """``shared``: the journal that a unit writes into which has none of its own (of one connection)."""

    def __init__(
        self, layout: Layout, settings: UnitsSettings, register: Register, shared: Callable[[str], Journal | None]
    ) -> None:
        self._directory = layout.journal
        self._settings = settings
        self._register = register
        self._shared = shared
        self._growth = Growth()
        journal = Journal(f"{layout.journal}/{DIRECTORY}", limits=self._limits(LogsSection()), growth=self._growth)
        self._kernel = KernelRecorder(journal, clock.boot_id())

    def journal_of(self, unit: Unit) -> Journal:
        """For its runner."""
        if (shared := self._shared(unit.name)) is not None:
            return shared
        return Journal(f"{self._directory}/{unit.name}", limits=self.limits_of(unit), growth=self._growth)

    def limits_of(self, unit: Unit) -> LogLimits:
        """As its file says, else the settings. What ``unit run`` started loses no line to a rate nobody asked for."""
        if unit.file.startswith(f"{self._register.transient_directory}/"):
            return self._limits(unit.document.logs, rate="unlimited")
        return self._limits(unit.document.logs)

    def _limits(self, section: LogsSection, rate: str = "") -> LogLimits:
        size, age = section.limit, section.age
        return LogLimits(
            size if size is not None else self._settings.log_limit,
            age if age is not None else self._settings.log_age,
            parse_rate(section.rate or rate or self._settings.log_rate),
        )

    # -- the kernel's -----------------------------------------------------------------------------------------------

    def begin(self, poller: Poller) -> None:
        """Record what the kernel says."""
        if self._settings.kernel_log:
            self._kernel.begin(poller, self._register.ground.alarms)

    def end(self) -> None:
        """Twice is fine."""
        self._kernel.end()

    # -- reading ----------------------------------------------------------------------------------------------------

    def lines(
        self, name: str, *, lines: int | None = None, since: float | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """Of one unit. Raises NotFoundError at once."""
        return read_journal(self.journal(name), lines=lines, since=since, follow=follow)

    def search(
        self, names: Sequence[str], query: LogQuery, *, kernel: bool = False
    ) -> AsyncGenerator[list[Entry], None]:
        """Of these, with * and ?; of all without names. Raises NotFoundError for one that is neither loaded nor kept.

        ``kernel``: the kernel's may be read. An empty list tells, once, that what follows is new.
        """
        journals: dict[str, Journal] = {}
        for name in names or ("*",):
            if any(sign in name for sign in "*?["):
                journals |= {one: self.journal(one) for one in self._names(kernel=kernel) if fnmatchcase(one, name)}
            elif name == KERNEL and not kernel and KERNEL not in self._register.runners:
                raise self._register.unknown(name)
            else:
                journals[plain_name(name)] = self.journal(name)

        def find(directory: str) -> tuple[str, Journal] | None:
            unit = KERNEL if directory.endswith(f"/{DIRECTORY}") else directory.rpartition("/")[2]
            if (unit == KERNEL and not kernel) or not any(fnmatchcase(unit, one) for one in names or ("*",)):
                return None
            return unit, self.journal(unit)

        return read_logs(journals, query, self._growth, find=find)

    def journal(self, name: str) -> Journal:
        """Also of a unit whose file is gone, as long as its log is there. Raises NotFoundError."""
        runners, plain = self._register.runners, plain_name(name)
        runner = runners.get(name) or runners.get(plain) or runners.get(self._register.aliases.get(plain, ""))
        if runner is not None:
            return runner.journal
        if name == KERNEL:
            return self._kernel.journal
        known = plain_name(name)
        if "/" not in known and not known.startswith(".") and files.is_directory(f"{self._directory}/{known}"):
            return Journal(f"{self._directory}/{known}", limit=self._settings.log_limit, growth=self._growth)
        raise self._register.unknown(name)

    def _names(self, *, kernel: bool) -> list[str]:
        try:
            there = {name for name in files.list_directory(self._directory) if not name.startswith(".")}
        except ApplianceError:
            there = set()
        known = there | self._register.runners.keys()
        return sorted(known | {KERNEL} if kernel else known)
