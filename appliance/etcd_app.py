"""The wiring of ``appliance etcd``: the store and its API alone, in the place of an etcd of one member."""

from __future__ import annotations

import json
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial

import trio

from appliance.errors import ApplianceError
from appliance.etcdapi import API_DEFAULTS, ApiOptions, EtcdApi, Listen, identity_as_etcd
from appliance.host import clock, files, process_self
from appliance.host.disk import FileDisk
from appliance.host.signals import HANGUP, Signals
from appliance.host.signals import name as signal_name
from appliance.store import LIMITS, RESTORING, CompactedError, Limits, Store

SWITCH_SECONDS = 0.0005  # as in app
REVISION_MODE_SECONDS = 300.0
PERIOD_SECONDS_MAX = 3600.0
_SAMPLES_PER_PERIOD = 10
STORE = "store"  # below the data directory
_READY_WORDS = (  # others' tests wait for them: those of etcd 3.4 for the first two, of 3.5 for the last
    "published local member", "enabled capabilities for version", "ready to serve client requests",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EtcdOptions:
    """What of etcd's flags means something here."""

    name: str
    data_dir: str
    listen: tuple[Listen, ...]
    unix_path: str | None = None
    client_urls: tuple[str, ...] = ()
    peer_urls: tuple[str, ...] = ()
    initial_peer_urls: tuple[str, ...] = ()  # by --initial-cluster
    cluster_token: str = "etcd-cluster"
    compact_every_seconds: float = 0.0  # keep what is younger
    compact_revisions: int = 0  # keep that many
    api: ApiOptions = API_DEFAULTS
    quota: int = 0  # bytes; 0: none
    to_stdout: bool = False
    notes: tuple[str, ...] = ()  # about flags, for the log


class Log:
    """etcd's own: a line of JSON each, where its clients' tests look for words."""

    def __init__(self, *, to_stdout: bool) -> None:
        self._to_stdout = to_stdout

    def say(self, level: str, message: str, **data: str | int | float | bool | None) -> None:
        """One line."""
        entry = {"level": level, "ts": clock.timestamp(clock.wall_seconds()), "msg": message, **data}
        line = json.dumps(entry, separators=(",", ":"))
        if self._to_stdout:
            print(line, flush=True)
        else:
            process_self.say(line)

    def publish(self, kind: str, subject: str, **data: str | int | float | bool | None) -> None:
        """For the store."""
        message = data.pop("message", "")
        self.say("info", f"{kind} {subject}: {message}", **data)


def run(options: EtcdOptions, signals: Signals) -> int:
    """Serves until a signal; returns the exit code. Raises ConflictError when the directory is in use, or etcd's."""
    files.make_directory(options.data_dir, mode=0o700)
    sys.setswitchinterval(SWITCH_SECONDS)
    process_self.raise_file_limit()
    lock = files.lock(files.join(options.data_dir, "lock"))
    try:
        _take_over(options)
        trio.run(_main, options, signals)
    except BaseExceptionGroup as group:
        ours = _first_of_ours(group)
        if ours is None:
            raise
        raise ours from group
    finally:
        lock.release()
    return 0


def _take_over(options: EtcdOptions) -> None:
    """What an etcd, or ``etcdctl snapshot restore``, left in the directory. Raises ConflictError."""
    disk = FileDisk(files.join(options.data_dir, STORE))
    begun = RESTORING in (names := disk.names())
    if (names and not begun) or not files.exists(files.join(options.data_dir, "member", "snap", "db")):
        return
    from appliance.migration import adopt

    done = adopt(options.data_dir, disk)
    words = f"took over an etcd's data at revision {done.revision}; member/ is as it was, and not used any more"
    Log(to_stdout=options.to_stdout).say("warn", f"{words}; {done.note}" if done.note else words)


async def _main(options: EtcdOptions, signals: Signals) -> None:
    log = Log(to_stdout=options.to_stdout)
    for note in options.notes:
        log.say("warn", note)
    asked = options.api.limits
    limits = Limits(max(asked.operations, LIMITS.operations), max(asked.request_bytes, LIMITS.request_bytes))
    disk = FileDisk(files.join(options.data_dir, STORE))
    # Which of ours may be larger.
    store = Store(disk, publish=log.publish, quota=options.quota, limits=limits, alone=True)
    identity = identity_as_etcd(
        options.name, client_urls=options.client_urls, peer_urls=options.peer_urls, token=options.cluster_token,
        first_peer_urls=options.initial_peer_urls or options.peer_urls,
    )  # fmt: skip
    api = EtcdApi(store, identity, unix_path=options.unix_path, listen=options.listen, options=options.api)
    stop_api, api_over, stop_store = trio.Event(), trio.Event(), trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        await api.run(stopping=stop_api, task_status=task_status)
        api_over.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(store.run, stopping=stop_store))
        async with trio.open_nursery() as beside:
            await beside.start(serve)
            beside.start_soon(compact_by_itself, store, options, log)
            for address in api.listening:
                log.say("info", "serving client traffic", address=address)
            for words in _READY_WORDS:
                log.say("info", words)
            process_self.settle_garbage()
            number = await _wait_stop(signals)
            log.say("info", f"stopping: {signal_name(number)}")
            stop_api.set()
            await api_over.wait()
            beside.cancel_scope.cancel()
        stop_store.set()


async def _wait_stop(signals: Signals) -> int:
    while True:
        number = await signals.wait()
        if number != HANGUP:
            return number


async def compact_by_itself(store: Store, options: EtcdOptions, log: Log) -> None:
    """--auto-compaction-mode and -retention, at etcd's intervals."""
    if options.compact_revisions:
        while True:
            await trio.sleep(REVISION_MODE_SECONDS)
            await _compact(store, store.revision - options.compact_revisions, log)
    if not options.compact_every_seconds:
        return
    keep = options.compact_every_seconds
    step = min(keep, PERIOD_SECONDS_MAX) / _SAMPLES_PER_PERIOD
    seen: deque[tuple[float, int]] = deque()
    next_time = trio.current_time() + keep
    while True:
        seen.append((trio.current_time(), store.revision))
        await trio.sleep(step)
        if trio.current_time() < next_time:
            continue
        revision = 0
        while seen and seen[0][0] <= trio.current_time() - keep:
            revision = seen.popleft()[1]
        next_time = trio.current_time() + min(keep, PERIOD_SECONDS_MAX)
        await _compact(store, revision, log)


async def _compact(store: Store, revision: int, log: Log) -> None:
    if revision <= store.compacted_revision:
        return
    try:
        await store.compact(revision)
    except CompactedError:
        return  # somebody was faster
    log.say("info", "finished auto compaction", revision=revision)


def _first_of_ours(group: BaseExceptionGroup[BaseException]) -> ApplianceError | None:
    for member in group.exceptions:
        found = _first_of_ours(member) if isinstance(member, BaseExceptionGroup) else member
        if isinstance(found, ApplianceError):
            return found
    return None
