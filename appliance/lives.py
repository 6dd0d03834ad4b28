"""One process, and the lives of the node in it: lock, settings, ``Node.main``; then the end, or another's turn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from appliance import settings as settings_file
from appliance.app import Goal, Node
from appliance.errors import CorruptError
from appliance.host import bundle as host_bundle
from appliance.host import files, process_self
from appliance.host.bundle import Bundle
from appliance.host.layout import Layout
from appliance.host.notify import Notifier
from appliance.host.signals import Signals
from appliance.telling import say
from appliance.update import go_back

if TYPE_CHECKING:
    from appliance.own_image import OwnImage

SWITCH_SECONDS = 0.0005  # the thread that syncs the store waits for the interpreter no longer than that


def run(layout: Layout, config_file: str | None, signals: Signals) -> int:
    """The node until it is stopped; returns the exit code. Raises ConflictError when this root has one already."""
    bundle = host_bundle.take()
    notifier = Notifier(process_self.environment())
    machine = None
    if process_self.is_init():
        process_self.settle_as_init()
        machine = take_machine()
        bundle = machine.own.of_bundle(bundle) if machine is not None else bundle
    sys.setswitchinterval(SWITCH_SECONDS)
    lock = files.lock(layout.lock)
    host_bundle.end_turn(bundle)
    try:
        loaded = settings_file.load(layout, config_file)
        if machine is not None:
            loaded = machine.settle(layout, loaded)
            machine.apply(layout, loaded, None)
        loaded.require()
        say(f"appliance {bundle.version}, pid {process_self.pid()}, root {layout.root}, slot {bundle.slot}")
        if bundle.note:
            say(f"launcher: {bundle.note}")
        for finding in loaded.findings:
            say(str(finding))
        if not loaded.files:
            say(f"no settings file ({layout.settings_file}): every setting has its default")
        while True:
            node = Node(layout, config_file, loaded, bundle, notifier, signals, machine)
            code = trio.run(node.main)
            if node.goal is not Goal.SWITCH:
                if machine is not None:
                    machine.machine.end(given_up=node.goal is None)
                return code
            signals.hold_back()
            if not signals.pending:  # else it was asked to stop meanwhile: live on as we are, and obey
                _become_launcher(bundle, layout, notifier)
            signals.take_over()
            loaded = node.loaded
    finally:
        lock.release()


def take_machine() -> OwnImage | None:
    """None on any host but our own image: there its init has made it ready."""
    from appliance.machine import read_boot_facts

    facts = read_boot_facts()
    if facts is None:
        return None
    from appliance.own_image import take

    return take(facts)


def _become_launcher(bundle: Bundle, layout: Layout, notifier: Notifier) -> None:
    """Does not return, unless nothing could be started. The lock goes with the exec, not before."""
    notifier.give_back()
    go_back(layout, version=bundle.version, say=say)
    try:
        host_bundle.exec_launcher(bundle, sys.argv[1:], layout.slots + "/current/appliance")
    except CorruptError as error:
        notifier.take_again()
        say(f"{error}; going on as version {bundle.version}")
