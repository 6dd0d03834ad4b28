"""What a unit may use (systemd.resource-control(5)). Pure."""

from __future__ import annotations

from collections.abc import Callable

from appliance.errors import InputError
from appliance.systemd.draft import Draft, Handler, Handlers, into, listed, no_equal, one_of
from appliance.systemd.lines import Assignment
from appliance.systemd.sandbox_keys import merged
from appliance.systemd.values import boolean, duration, integer, seconds, size, size_word
from appliance.systemd.words import split_words

_NO_FENCE = ("IPEgressFilterPath", "IPIngressFilterPath")
_NO_EQUAL = (
    "BlockIODeviceWeight", "BlockIOReadBandwidth", "BlockIOWriteBandwidth", "CoredumpReceive", "DefaultMemoryLow",
    "DefaultMemoryMin", "DelegateSubgroup", "DisableControllers",
    "IODeviceLatencyTargetSec", "IODeviceWeight",
    "ManagedOOMMemoryPressure", "ManagedOOMMemoryPressureDurationSec",
    "ManagedOOMMemoryPressureLimit", "ManagedOOMPreference", "ManagedOOMSwap", "MemoryPressureThresholdSec",
    "MemoryPressureWatch", "MemoryZSwapWriteback", "NetClass", "NFTSet", "Slice",
    "StartupAllowedCPUs", "StartupAllowedMemoryNodes", "StartupBlockIOWeight",
    "StartupCPUShares", "StartupCPUWeight", "StartupIOWeight", "StartupMemoryHigh", "StartupMemoryLow",
    "StartupMemoryMax", "StartupMemorySwapMax", "StartupMemoryZSwapMax",
)  # fmt: skip
_ACCOUNTING = ("BlockIO", "CPU", "IO", "Memory", "Tasks")
_CONTROLLERS = frozenset({"cpu", "cpuset", "io", "memory", "pids"})


def _silent(draft: Draft, at: Assignment) -> None:
    """It is always on."""


def _quota(text: str) -> str:
    if not text.endswith("%"):
        raise InputError(f'found "{text}", expected a share of one CPU such as 20%')
    return text


def _tasks(text: str) -> int | str:
    return text if text == "infinity" or text.endswith("%") else integer(text, 1, 1 << 62)


def _weight(text: str) -> int | str:
    return "idle" if text == "idle" else integer(text, 1, 10000)


def _scaled(default: int) -> Callable[[str], int]:
    """A weight of cgroup v1, as systemd turns it into one of v2."""

    def read(text: str) -> int:
        return min(max(integer(text, 1, 1 << 18) * 100 // default, 1), 10000)

    return read


def _cpus(text: str) -> str:
    return ",".join(text.replace(",", " ").split())


def _delegate(draft: Draft, at: Assignment) -> None:
    if not at.value:
        draft.unset("resources", "delegate")
        return
    try:
        draft.set("resources", "delegate", boolean(at.value), at)
    except InputError:
        words = [one for one in split_words(at.value, escapes=False) if one in _CONTROLLERS]
        draft.set("resources", "delegate", words or True, at)


def _device(text: str) -> list[str]:
    return [" ".join(split_words(text))]


def _interfaces(draft: Draft, at: Assignment) -> None:
    """As all lists with a ``~``."""
    words = split_words(at.value.removeprefix("~"), escapes=False)
    if not words:
        draft.unset("resources", "restrict_network_interfaces")
        return
    found = merged(draft.get("resources", "restrict_network_interfaces"), words, turned=at.value.startswith("~"))
    draft.set("resources", "restrict_network_interfaces", found, at)


def _io_limit(key: str, base: int) -> Handler:
    def handle(draft: Draft, at: Assignment) -> None:
        table: list[dict[str, object]] = draft.get("resources", "io_max") or []
        if not at.value:
            for one in table:
                one.pop(key, None)
            return
        words = split_words(at.value)
        if len(words) != 2:
            raise InputError(f'found "{at.value}", expected a device and a number')
        device, word = words
        value: object = "infinity" if word == "infinity" else size(word, base)
        if value == "infinity" and not key.endswith("bytes"):
            return
        if not device.startswith("/"):
            raise InputError(f'found "{device}", expected a path')
        own = next((one for one in table if one["device"] == device), None)
        if own is None:
            own = {"device": device}
            table.append(own)
        own[key] = value
        draft.set("resources", "io_max", table, at)

    return handle


RESOURCES: Handlers = {
    **{f"{name}Accounting": _silent for name in _ACCOUNTING},
    **{name: no_equal() for name in _NO_EQUAL},
    **{name: no_equal("this fence is not put up") for name in _NO_FENCE},
    "MemoryMin": into("resources", "memory_min", size_word),
    "MemoryLow": into("resources", "memory_low", size_word),
    "MemoryHigh": into("resources", "memory_high", size_word),
    "MemoryMax": into("resources", "memory_max", size_word),
    "MemoryLimit": into("resources", "memory_max", size_word),
    "MemorySwapMax": into("resources", "memory_swap_max", size_word),
    "MemoryZSwapMax": into("resources", "memory_zswap_max", size_word),
    "CPUWeight": into("resources", "cpu_weight", _weight),
    "CPUShares": into("resources", "cpu_weight", _scaled(1024)),
    "CPUQuota": into("resources", "cpu_quota", _quota),
    "CPUQuotaPeriodSec": into(
        "resources", "cpu_quota_period", lambda text: duration(min(max(seconds(text), 0.001), 1.0))
    ),
    "AllowedCPUs": into("resources", "cpus", _cpus),
    "AllowedMemoryNodes": into("resources", "memory_nodes", _cpus),
    "TasksMax": into("resources", "tasks_max", _tasks),
    "IOWeight": into("resources", "io_weight", lambda text: integer(text, 1, 10000)),
    "BlockIOWeight": into("resources", "io_weight", _scaled(500)),
    "IOReadBandwidthMax": _io_limit("read_bytes", 1000),
    "IOWriteBandwidthMax": _io_limit("write_bytes", 1000),
    "IOReadIOPSMax": _io_limit("read_operations", 1000),
    "IOWriteIOPSMax": _io_limit("write_operations", 1000),
    "Delegate": _delegate,
    "DevicePolicy": into("resources", "device_policy", one_of("auto", "closed", "strict")),
    "DeviceAllow": listed("resources", "device_allow", _device),
    "IPAccounting": into("resources", "ip_accounting", boolean),
    "IPAddressAllow": listed("resources", "ip_address_allow", split_words),
    "IPAddressDeny": listed("resources", "ip_address_deny", split_words),
    "RestrictNetworkInterfaces": _interfaces,
    "SocketBindAllow": listed("resources", "socket_bind_allow", split_words),
    "SocketBindDeny": listed("resources", "socket_bind_deny", split_words),
}
