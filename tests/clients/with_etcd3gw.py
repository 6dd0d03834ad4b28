"""What PyPI's etcd3gw (the JSON gateway) sees of the store at HOST PORT, as JSON. Runs in .build/clients."""

from __future__ import annotations

import json
import sys
import threading

from etcd3gw import Etcd3Client, exceptions


def main(host: str, port: str) -> None:
    client = Etcd3Client(host=host, port=int(port), timeout=30)
    seen: dict[str, object] = {"path": client.api_path, "members": len(client.members())}
    seen["put"] = [client.put(f"k{each}", f"v{each}") for each in range(5)]
    seen["create"] = [client.create("new", "1"), client.create("new", "2")]
    seen["replace"] = [client.replace("new", "1", "3"), client.replace("new", "1", "4")]
    seen["get"] = [client.get("k1"), client.get("none"), client.get("new", metadata=True)]
    seen["prefix"] = client.get_prefix("k", sort_order="descend", sort_target="value")
    seen["all"] = client.get_all(sort_order="ascend", sort_target="mod")
    seen["range"] = client.get("k1", range_end="k9", limit=2, keys_only=True, metadata=True)
    seen["old"] = client.get("new", revision=7, metadata=True)
    seen["binary"] = [client.put(b"\x00\xff", b"\xfe\x00"), client.get(b"\x00\xff")]
    seen["delete"] = [client.delete("k1"), client.delete("k1"), client.delete_prefix("k"), client.get_prefix("k")]
    transaction = {
        "compare": [{"key": "bmV3", "target": "VERSION", "result": "GREATER", "version": 1}],
        "success": [{"request_range": {"key": "bmV3"}}, {"request_put": {"key": "bmV3", "value": "dHhu"}}],
        "failure": [{"request_delete_range": {"key": "bmV3"}}],
    }
    seen["transaction"] = without_ids(client.transaction(transaction))
    seen["lease"] = leases(client)
    seen["lock"] = locks(client)
    seen["watch"] = watches(client)
    refused: list[object] = []
    for attempt in (
        lambda: client.put("", "x"),
        lambda: client.get("new", revision=9999),
        lambda: client.lease(9_000_000_001),
        lambda: client.transaction({"compare": [{"key": "bmV3", "target": "NONSENSE"}]}),
    ):
        try:
            refused.append(attempt() and None)
        except exceptions.Etcd3Exception as error:
            refused.append([type(error).__name__, str(error), error.detail_text])
    seen["refused"] = refused
    print(json.dumps(seen, default=lambda each: each.decode("latin-1"), indent=1))


def leases(client: Etcd3Client) -> list[object]:
    lease = client.lease(ttl=300)
    client.put("leased", "x", lease)
    found = [lease.keys(), 290 < lease.ttl() <= 300, lease.refresh(), lease.revoke(), client.get("leased"), lease.ttl()]
    short = client.lease(ttl=1)  # the store makes it two seconds
    gone = threading.Event()
    watcher = client_watch(client, "short", lambda event: gone.set() if event.get("type") == "DELETE" else None)
    client.put("short", "x", short)
    found += [client.get("short"), gone.wait(30), client.get("short")]
    watcher()
    return found


def locks(client: Etcd3Client) -> list[object]:
    with client.lock("one", ttl=100) as held:
        other = client.lock("one", ttl=100)
        found: list[object] = [held.is_acquired(), other.acquire(), other.is_acquired(), held.refresh()]
    return [*found, held.is_acquired(), other.acquire(), other.release(), other.release()]


def watches(client: Etcd3Client) -> list[object]:
    client.put("w0", "before")
    revision = int(client.get("w0", metadata=True)[0][1]["mod_revision"])
    events, cancel = client.watch_prefix("w", start_revision=revision, prev_kv=True)
    found: list[object] = [next(events)]
    client.put("w1", "a")
    client.put("w1", "b")
    client.delete("w1")
    found += [next(events) for _ in range(3)]
    cancel()
    later = threading.Timer(0.3, client.put, ("once", "x"))
    later.start()
    found.append(client.watch_once("once", timeout=30))
    later.join()
    return found


def client_watch(client: Etcd3Client, key: str, callback):
    events, cancel = client.watch(key)

    def follow() -> None:
        for event in events:
            callback(event)

    threading.Thread(target=follow, daemon=True).start()
    return cancel


def without_ids(answer):
    answer["header"] = sorted(answer["header"])
    for each in answer.get("responses", ()):
        for part in each.values():
            if "header" in part:
                part["header"] = {name: each for name, each in part["header"].items() if name == "revision"}
    return answer


main(*sys.argv[1:])
