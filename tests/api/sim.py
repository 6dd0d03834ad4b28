"""Subjects that need no machine: real bus, real pictures, scripted units, store and update."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from appliance.api import NodePicture, SettingsPicture, Subjects
from appliance.errors import NotFoundError, UnavailableError
from appliance.host.group_usage import Usage
from appliance.schema import Finding
from appliance.store import Event as StoreEvent
from appliance.store import EventKind, KeyValue, PutResult, Range, RangeResult, StoreStatus, WatchBatch
from appliance.supervisor import EventBus, Moment, ServicePicture
from appliance.units import Entry, LogLine, LogQuery, ReloadPlan, Step, Transaction, UnitPicture, Waited

STARTED = 1_790_000_000.0


def unit(name: str, state: str = "ready", **more: Any) -> UnitPicture:
    values: dict[str, Any] = {
        "name": name, "description": f"The {name} <unit> & \"friends\"", "type": "simple", "state": state, "reason": "",
        "since": STARTED, "desired": "up", "pid": 4242 if state == "ready" else None, "restarts": 0, "last_exit": "",
        "status_text": "", "health": "", "health_reason": "", "tracking": "cgroup", "file": f"/u/{name}.toml",
        "changed": False, "requires": (), "wants": (), "after": (), "before": (), "log_bytes_dropped": 0, "history": (),
    }  # fmt: skip
    return UnitPicture(**{**values, **more})


def service(name: str, state: str = "ready", **more: Any) -> ServicePicture:
    values: dict[str, Any] = {
        "name": name, "state": state, "since": STARTED, "failures": 0, "reason": "", "essential": True, "needs": (),
        "history": (Moment(STARTED, state, "it came up"),),
    }  # fmt: skip
    return ServicePicture(**{**values, **more})


@dataclass
class SimSupervisor:
    services: list[ServicePicture] = field(default_factory=lambda: [service("store"), service("units")])
    reasons: tuple[str, ...] = ()

    def pictures(self) -> tuple[ServicePicture, ...]:
        return tuple(self.services)

    def essential_ready(self) -> tuple[bool, tuple[str, ...]]:
        return not self.reasons, self.reasons


class SimUnits:
    def __init__(self, bus: EventBus, *units: UnitPicture) -> None:
        self.bus = bus
        self.all = {one.name: one for one in units}
        self.lines: dict[str, list[LogLine]] = {one.name: [] for one in units}
        self.more = trio.Event()
        self.asked: list[tuple[str, ...]] = []
        self.following = 0

    def become(self, name: str, state: str, **more: Any) -> None:
        self.all[name] = replace(self.all[name], state=state, **more)
        self.bus.publish("unit", name, state=state)

    def write(self, name: str, text: str) -> None:
        self.lines[name].append(LogLine("2026-11-22T03:00:00.000Z", text))
        self.more.set()
        self.more = trio.Event()

    def pictures(self) -> tuple[UnitPicture, ...]:
        return tuple(self.all.values())

    def picture(self, name: str) -> UnitPicture:
        if name not in self.all:
            raise NotFoundError(f"cannot find unit {name}: there is no such unit", where=name)
        return self.all[name]

    def problems(self) -> tuple[Any, ...]:
        return ()

    def usages(self, names: Iterable[str] | None = None) -> dict[str, Usage]:
        some = Usage(cpu_seconds=1.5, memory_bytes=4096, tasks=2, io_read_bytes=None, io_write_bytes=7)
        return {name: some for name in (names or self.all) if self.all[name].pid}

    def file_text(self, name: str) -> str:
        self.picture(name)
        return "[service]\n"

    async def _act(self, verb: str, name: str, state: str) -> UnitPicture:
        self.picture(name)
        self.asked.append((verb, name))
        self.become(name, state)
        return self.all[name]

    async def transact(self, verb: str, names: Any, *, wait: bool = True, dry_run: bool = False) -> Transaction:
        steps = tuple(Step(wave=1, action=verb, unit=name, why="asked for") for name in names)
        return Transaction(verb=verb, names=tuple(names), steps=steps, unchanged=(), left_out=())

    async def enable(self, verb: str, names: Any, *, now: bool = False) -> tuple[UnitPicture, ...]:
        return tuple(self.picture(name) for name in names)

    async def wait(self, name: str, goal: Any, *, timeout: float) -> Waited:
        return Waited(met=True, hopeless=False, unit=self.picture(name))

    async def write_file(self, name: str, text: str, **_: Any) -> tuple[Finding, ...]:
        self.picture(name)
        return ()

    async def run_transient(self, data: Any, *, name: str = "") -> Any:
        raise UnavailableError("cannot run a unit here")

    def graph_text(self, names: Any, *, as_picture: bool) -> str:
        return "<svg/>" if as_picture else "digraph units {}"

    def processes(self, name: str) -> tuple[Any, ...]:
        self.picture(name)
        return ()

    async def start(self, name: str, *, wait: bool = True) -> UnitPicture:
        return await self._act("start", name, "ready")

    async def stop(self, name: str, *, wait: bool = True) -> UnitPicture:
        return await self._act("stop", name, "stopped")

    async def restart(self, name: str, *, wait: bool = True) -> UnitPicture:
        return await self._act("restart", name, "ready")

    async def reload_unit(self, name: str) -> UnitPicture:
        return await self._act("reload", name, "ready")

    async def reset_failed(self, name: str) -> UnitPicture:
        return await self._act("reset-failed", name, "stopped")

    async def reload(self, *, dry_run: bool = False) -> ReloadPlan:
        self.asked.append(("reload", str(dry_run)))
        return ReloadPlan(start=("web",))

    async def logs(
        self, name: str, *, lines: int | None = None, since: float | None = None, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        position = max(0, len(self.lines[name]) - (lines or 0))
        self.following += follow
        try:
            while True:
                for line in self.lines[name][position:]:
                    yield line
                position = len(self.lines[name])
                if not follow:
                    return
                await self.more.wait()
        finally:
            self.following -= follow

    def search_logs(
        self, names: Sequence[str], query: LogQuery, *, kernel: bool = False
    ) -> AsyncGenerator[list[Entry], None]:
        name = names[0] if names else "web"
        self.picture(name)
        return self._search(name, query)

    async def _search(self, name: str, query: LogQuery) -> AsyncGenerator[list[Entry], None]:
        async with aclosing(self.logs(name, lines=query.lines, follow=query.follow)) as lines:  # type: ignore[type-var]
            async for line in lines:
                yield [Entry(line.time, name, line.text.encode())]


class SimStore:
    def __init__(self) -> None:
        self.revision = 1
        self.kvs: dict[bytes, KeyValue] = {}
        self.watchers = 0
        self.batches: trio.MemorySendChannel[WatchBatch] | None = None
        self.problem = ""

    def status(self) -> StoreStatus:
        if self.problem:
            raise UnavailableError(f"cannot use the store: {self.problem}")
        return StoreStatus("open", "", self.revision, 1, len(self.kvs), 0, 0, 1, 4096, 0, 0, 0)

    def read(self, request: Range) -> RangeResult:
        key, end = request.key, request.range_end
        found = tuple(kv for name, kv in sorted(self.kvs.items()) if name == key or (end and key <= name < end))
        return RangeResult(found, False, len(found), self.revision)

    async def put(self, key: bytes, value: bytes, *, lease: int = 0, prev_kv: bool = False) -> PutResult:
        self.revision += 1
        prev = self.kvs.get(key)
        self.kvs[key] = KeyValue(key, value, self.revision, self.revision, 1, lease)
        return PutResult(self.revision, prev if prev_kv else None)

    async def delete(self, key: bytes, range_end: bytes | None = None, *, prev_kv: bool = False) -> Any:
        raise NotImplementedError

    async def txn(self, compares: Any, success: Any, failure: Any) -> Any:
        raise NotImplementedError

    async def compact(self, revision: int) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def watch(
        self, key: bytes, range_end: bytes | None = None, *, start_revision: int = 0, prev_kv: bool = False
    ) -> AsyncIterator[AsyncIterator[WatchBatch]]:
        self.watchers += 1
        try:
            kv = KeyValue(key, b"v", 2, 2, 1)

            async def batches() -> AsyncIterator[WatchBatch]:
                yield WatchBatch(2, (StoreEvent(EventKind.PUT, kv),))
                await trio.sleep_forever()

            yield batches()
        finally:
            self.watchers -= 1

    async def backup(self) -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 10_000


@dataclass
class SimSettings:
    listen: str = "127.0.0.1:0"
    token_file: str | None = None
    hosts: tuple[str, ...] = ("node.example",)


class Sim:
    """All of it together, and the Subjects made of it."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.bus = EventBus()
        self.supervisor = SimSupervisor()
        self.units = SimUnits(self.bus, unit("web"), unit("worker", "backoff", reason="it exited with 1", restarts=3))
        self.store = SimStore()
        self.settings = SimSettings()
        self.stopped = 0
        self.subjects = Subjects(
            control_socket=str(directory / "run" / "control.sock"),
            node=lambda: NodePicture(
                name="demo",
                version="1.0.0",
                pid=1,
                slot="a",
                trial=False,
                started=STARTED,
                root="/",
                uptime_seconds=5.0,
            ),
            status_settings=lambda: self.settings,
            settings=lambda: SettingsPicture(file="/etc/appliance/appliance.toml", loaded=STARTED),
            settings_document=lambda: {"update": {"repository": "https://u:secret@h/x", "token": "abc"}},
            supervisor=self.supervisor,
            bus=self.bus,
            units=self.units,
            **{"store": self.store, "absent": {"update": "no slots on this host"}, "shutdown": self.stop, **more},
        )

    def stop(self) -> None:
        self.stopped += 1
