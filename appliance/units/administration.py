"""What an administrator does to units beside starting them: enable, mask, edit, wait, run a command as one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import trio

from appliance.errors import ConflictError, InputError, UnavailableError
from appliance.host import clock, entropy, files
from appliance.schema import Finding, to_toml
from appliance.units.enablement import change_enablement
from appliance.units.lifecycle import State
from appliance.units.loading import Loading
from appliance.units.log_following import read_journal
from appliance.units.operations import Operations
from appliance.units.pictures import Goal, LogLine, Waited
from appliance.units.register import Register
from appliance.units.runner import Runner
from appliance.units.specifiers import template_of
from appliance.units.unit_directory import check_unit_text, enabled_with, file_to_edit
from appliance.units.unit_file import SUFFIX, parse_unit
from appliance.units.unit_section import plain_name

_AT_REST = (State.STOPPED, State.EXITED, State.FAILED)


class Administration:
    """Acts on files and on the register; asks ``Operations`` for what follows."""

    def __init__(self, register: Register, operations: Operations, loading: Loading) -> None:
        self._register = register
        self._operations = operations
        self._loading = loading

    async def enable(self, verb: str, names: Sequence[str], *, now: bool = False) -> None:
        """enable, disable, mask, unmask: durable on return. ``now``: start or stop them as well."""
        register = self._register
        plain = enabled_with(register.files, [plain_name(name) for name in names], verb)
        for name in plain:
            if name not in register.runners and template_of(name) not in register.files.templates and verb != "unmask":
                raise register.unknown(name)
        register.enablement = change_enablement(register.enablement_file, verb, plain)
        for name in plain:
            runner = register.runners.get(name)
            if runner is None:
                continue
            if verb == "disable":
                runner.standing.disabled = True
            elif verb == "enable" and (now or runner.unit.triggers_itself):
                runner.standing.disabled = False
            if verb == "enable":
                register.passing.discard(name)
        register.link()
        if now and verb in ("enable", "disable", "mask"):
            await self._operations.run("start" if verb == "enable" else "stop", plain)

    def check_file(self, name: str, text: str, *, drop_in: bool = False) -> tuple[Finding, ...]:
        """What would be wrong with that text as the unit's file, or as the drop-in that ``edit`` keeps."""
        return check_unit_text(self._register.directory, plain_name(name), text, drop_in=drop_in)

    async def write_file(
        self, name: str, text: str, *, drop_in: bool = False, digest: str | None = None
    ) -> tuple[Finding, ...]:
        """Save it when it has no errors; durable on return. The findings. ``digest``: of what it was made from."""
        from hashlib import sha256

        name = plain_name(name)
        findings = self.check_file(name, text, drop_in=drop_in)
        if any(one.severity == "error" for one in findings):
            return findings
        path = file_to_edit(self._register.directory, name, drop_in=drop_in)
        if digest is not None:
            now = sha256(files.read_bytes(path) if files.exists(path) else b"").hexdigest()
            if now != digest:
                raise ConflictError(f"cannot save {path}: it was changed meanwhile", where=path)
        files.write_atomic(path, text.encode())
        return findings

    async def wait(self, name: str, goal: Goal, *, timeout: float) -> Waited:
        """Until that is so, cannot be so by itself any more, or the time is over."""
        runner = self._register.runner(name)
        with trio.move_on_after(timeout):
            while not _is_met(runner, goal) and not self._is_hopeless(runner, goal):
                if not self._register.is_serving:
                    raise UnavailableError(f"cannot wait for {name}: the appliance stops")
                await runner.turned.park()
        met = _is_met(runner, goal)
        return Waited(met=met, hopeless=not met and self._is_hopeless(runner, goal), unit=runner.picture())

    def _is_hopeless(self, runner: Runner, goal: Goal) -> bool:
        if goal not in ("ready", "healthy"):
            return False
        if self._register.runners.get(runner.name) is not runner:
            return True
        if goal == "healthy" and runner.unit.document.health is None:
            return True
        return runner.state is State.FAILED

    async def run_transient(self, data: Mapping[str, Any], *, name: str = "") -> Runner:
        """Make a unit of these tables, and start it. Raises InputError with the first finding, ConflictError."""
        register = self._register
        if not register.is_serving:
            raise UnavailableError("cannot run a unit: units are not running")
        name = plain_name(name) if name else f"run-{entropy.token(4)}"
        if name in register.runners or name in register.files.units:
            raise ConflictError(f"cannot run {name}: there is a unit of that name")
        path = f"{register.transient_directory}/{name}{SUFFIX}"
        parsed = parse_unit(to_toml(data), path)
        if parsed.unit is None:
            first = next(one for one in parsed.findings if one.severity == "error")
            raise InputError(f"cannot run {name}: {first.path}: {first.message}", where=first.path)
        if not parsed.unit.has_process:
            raise InputError(f"cannot run {name}: there is no command", where="service.command")
        files.write_atomic(path, parsed.unit.text.encode(), mode=0o600, durable=False)
        runner = register.admit(parsed.unit)
        await self._operations.run("start", [name], wait=False)
        return runner

    async def output_of(self, runner: Runner, since: float) -> AsyncIterator[LogLine]:
        """What it writes until it is at rest; all of it, also of one that was forgotten meanwhile."""
        told = 0
        send, receive = trio.open_memory_channel[LogLine | None](16)
        nursery = self._register.nursery
        if nursery is None:
            raise UnavailableError("cannot follow a unit: units are not running")
        scope = trio.CancelScope()

        async def follow() -> None:
            with scope:
                async for line in read_journal(runner.journal, lines=None, since=since, follow=True):
                    await send.send(line)

        async def see() -> None:
            while runner.state not in _AT_REST and self._register.is_serving:
                await runner.turned.park()
            scope.cancel()
            await send.send(None)

        nursery.start_soon(follow)
        nursery.start_soon(see)
        try:
            while (line := await receive.receive()) is not None:
                told += 1
                yield line
        finally:
            scope.cancel()
            receive.close()
        number = 0
        async for line in read_journal(runner.journal, lines=None, since=since, follow=False):
            number += 1
            if number > told:
                yield line


def _is_met(runner: Runner, goal: Goal) -> bool:
    match goal:
        case "ready":
            return runner.state.is_up or (runner.standing.came_up and runner.state is State.STOPPED)
        case "healthy":
            return runner.state.is_up and runner.health is True
        case "exit":
            return not runner.state.is_active and runner.state is not State.WAITING
        case "stopped":
            return runner.state in (State.STOPPED, State.FAILED)


def now() -> float:
    """For ``output_of``: from this moment on."""
    return clock.wall_seconds()
