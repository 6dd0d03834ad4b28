"""The fences of our own children that read what strangers wrote: those of a unit, as tight as their work allows. Pure.

What a kernel lacks is left out: a host without seccomp or namespaces still gets its updates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from appliance.host.kernel import kernel
from appliance.units.fences import Fences
from appliance.units.sandbox_section import SandboxSection
from appliance.units.unit_file import UnitDocument

_CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH")  # the update may lie on a stick of whatever user


@lru_cache(maxsize=4)
def fences_of_child(*writable: str) -> tuple[str, ...]:
    """Options for spawn: it may read all files, change only ``writable``, use the network, and gain nothing."""
    sandbox = SandboxSection(
        no_new_privileges=True, capabilities=_CAPABILITIES, read_only_root="strict",
        writable_paths=tuple(f"-{path}" for path in writable), protect_kernel_modules=True, protect_kernel_logs=True,
        protect_clock=True, protect_hostname=True, restrict_namespaces=True, restrict_realtime=True,
        restrict_suid_sgid=True, lock_personality=True,
        restrict_address_families=("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"),
        system_calls=("@system-service",), system_call_error="EPERM", lenient=True,
    )  # fmt: skip
    return Fences(kernel(), frozenset).spawn_words(replace(UnitDocument(), sandbox=sandbox))
