"""Users' bundles: an updater for each ``[[update.bundle]]``, beside our own, by the same machinery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from appliance.errors import ApplianceError, NotFoundError
from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.processes import Processes
from appliance.host.slots import RealSlotCalls
from appliance.update.agent import Update
from appliance.update.asking import AskWorker
from appliance.update.bundle_slots import BundleSlots
from appliance.update.memory import Keeper
from appliance.update.product import Product
from appliance.update.settings import BundleSettings


class UnitsOfBundles(Protocol):
    """What is asked of ``units.Units``."""

    async def restart(self, name: str, *, wait: bool = True) -> Any:
        """Stop and start it."""

    async def stop(self, name: str, *, wait: bool = True) -> Any:
        """Stop it."""

    def health(self) -> Mapping[str, bool]:
        """Per unit that exists, whether it is well."""


@dataclass(eq=False)
class _Running:
    settings: BundleSettings
    update: Update
    stopping: trio.Event


class Bundles:
    """The service. ``settings`` are asked anew at each ``reconfigure``."""

    def __init__(
        self,
        *,
        layout: Layout,
        settings: Callable[[], Sequence[BundleSettings]],
        bundle: Bundle,
        processes: Processes,
        keeper: Keeper,
        units: UnitsOfBundles,
        publish: Callable[..., None],
        ask_worker: AskWorker | None = None,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._bundle = bundle
        self._processes = processes
        self._keeper = keeper
        self._units = units
        self._publish = publish
        self._ask_worker = ask_worker
        self._running: dict[str, _Running] = {}
        self._changed = trio.Event()

    def of(self, name: str) -> Update:
        """The updater of that bundle. Raises NotFoundError."""
        if name not in self._running:
            known = ", ".join(sorted(self._running)) or "none"
            raise NotFoundError(f"cannot find bundle {name}; those of the settings ([[update.bundle]]): {known}")
        return self._running[name].update

    def all(self) -> tuple[Update, ...]:
        """The updaters of all bundles, by name."""
        return tuple(self._running[name].update for name in sorted(self._running))

    def reconfigure(self) -> None:
        """The settings changed."""
        self._changed.set()

    async def run(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """All of them, until ``stopping``; what is under way is gone on with by the next process."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_settings, nursery, task_status)
            await stopping.wait()
            nursery.cancel_scope.cancel()
        self._running.clear()

    async def _follow_settings(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        started = False
        while True:
            wanted = {one.name: one for one in self._settings()}
            for name in [name for name in self._running if name not in wanted]:
                self._running.pop(name).stopping.set()
            for name, settings in wanted.items():
                there = self._running.get(name)
                if there is None or (there.settings.units, there.settings.trust_root) != (
                    settings.units, settings.trust_root,
                ):  # fmt: skip
                    if there is not None:
                        there.stopping.set()
                    self._running[name] = made = self._make(settings)
                    await nursery.start(self._run_one, made)
                elif there.settings != settings:
                    there.settings = settings
                    there.update.reconfigure(settings)
            if not started:
                started = True
                task_status.started()
            await self._changed.wait()
            self._changed = trio.Event()

    async def _run_one(self, one: _Running, task_status: trio.TaskStatus[None]) -> None:
        await one.update.run(stopping=one.stopping, task_status=task_status)

    def _make(self, settings: BundleSettings) -> _Running:
        product = Product(settings.name, "bundle")
        slots = BundleSlots(RealSlotCalls(), product.slots(self._layout))
        update = Update(
            layout=self._layout, settings=settings, bundle=self._bundle, processes=self._processes,
            keeper=self._keeper, health=_HealthOfBundle(self._units, settings.units), switch=_never,
            publish=self._publish, ask_worker=self._ask_worker, slots=slots, product=product,
            take_over=self._taking_over(slots, settings.units), trust_root=settings.trust_root,
        )  # fmt: skip
        return _Running(settings, update, trio.Event())

    def _taking_over(self, slots: BundleSlots, names: Sequence[str]) -> Callable[[], Awaitable[None]]:
        async def take_over() -> None:
            running = await trio.to_thread.run_sync(slots.settle)
            for name in names:
                try:
                    if running is None:
                        await self._units.stop(name, wait=False)
                    else:
                        await self._units.restart(name, wait=False)
                except ApplianceError as exc:  # the health gate decides what that means
                    self._publish("update", "trouble", message=exc.message)

        return take_over


class _HealthOfBundle:
    """The named units must be well; all others that were well too, as ever."""

    def __init__(self, units: UnitsOfBundles, names: Sequence[str]) -> None:
        self._units, self._names = units, names

    def services_ready(self) -> tuple[bool, tuple[str, ...]]:
        """Whether every named unit is well, and which is not."""
        health = self._units.health()
        wrong = tuple(
            f"unit {name} is {'not healthy' if name in health else 'unknown'}"
            for name in self._names if not health.get(name, False)
        )  # fmt: skip
        return not wrong, wrong

    def unit_health(self) -> Mapping[str, bool]:
        """Per unit."""
        return self._units.health()


async def _never() -> None:
    raise AssertionError("a bundle is switched beside us")
