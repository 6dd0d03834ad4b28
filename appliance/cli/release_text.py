"""The answers of ``appliance release`` as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.cli.render import paint, size, table

_HEADINGS = {"staged": "to be published next", "releases": "in the repository"}


def text(data: dict[str, Any]) -> str:
    """All that the answer holds, one paragraph each."""
    parts = _sentences(data)
    cells: list[tuple[Any, ...]]
    for title in ("published", "staged", "verified", "releases", "pruned", "exported"):
        if (rows := data.get(title)) is not None:
            parts.append(f"{_HEADINGS.get(title, title)}: " + (_releases(rows) if rows else "nothing"))
    if "removed_files" in data:
        parts.append(f"removed {data['removed_files']} files, {size(data['removed_bytes'])}")
    for channel, rules in data.get("rules", {}).items():
        parts.append(f"rules of {channel}:\n" + _rules(rules))
    if "key_roles" in data:
        cells = [(one["role"], f"{one['threshold']} of {one['keys']}", one["id"][:16], one["name"], one["kind"])
                 for one in data["key_roles"]]  # fmt: skip
        parts.append(table(("role", "threshold", "key", "name", "kept as"), cells))
    if "roles" in data:
        cells = [(one["role"], str(one["version"]), one["expires"], f"{one['threshold']} of {one['keys']}")
                 for one in data["roles"]]  # fmt: skip
        parts.append(table(("role", "version", "expires", "keys"), cells))
    if "expires" in data:
        cells = [(one["role"], one["expires"], f"{one['days']} days") for one in data["expires"]]
        parts.append(table(("role", "expires", "in"), cells))
    if "ways" in data:
        cells = [
            (one["channel"], one["architecture"], " -> ".join([one["from"], *one["steps"]]), one["why"])
            for one in data["ways"]
        ]
        parts.append(table(("channel", "architecture", "way of a host", "why not on"), cells))
    parts += [paint(f"warning: {one}", "yellow") for one in data.get("warnings", ())]
    if data.get("dry_run"):
        parts.append("a dry run: nothing was changed")
    return "\n\n".join(parts)


def _sentences(data: dict[str, Any]) -> list[str]:
    parts = []
    if "trust_root" in data:
        ready = "a repository would be made" if data.get("dry_run") else "repository ready"
        made = f" ({', '.join(data['made_keys'])} new)" if data.get("made_keys") else ""
        parts.append(
            f"{ready}; keys are in {data['keys']}{made}: keep root keys and channel keys offline\n"
            f"hosts need {data['trust_root']} as /etc/appliance/trust/root.json"
        )
    if "rotated" in data:
        parts.append(f"key {data['rotated']} is replaced by {data['new_key']}; remove the old file")
    if "added" in data:
        parts.append(f"key {data['added']} signs {data['role']} now")
    if "revoked" in data:
        parts.append(f"key {data['revoked'][:16]} signs {data['role']} no more; remove its file")
    if "signed" in data:
        parts.append("signed anew: " + ", ".join(data["signed"]))
    if changed := data.get("changed"):
        parts.append(f"{changed['rule']} of {changed['channel']} {changed['version']}".rstrip() + ": published")
    for name, words in (("root_payload", "root to be signed"), ("imported", "new root is published")):
        if name in data:
            one = data[name]
            changes = "".join(f"\n  {change}" for change in one["changes"])
            parts.append(f"{words}: version {one['version']}, expires {one['expires']}{changes}")
    if one := data.get("root_signed"):
        parts.append(
            f"root version {one['version']} signed by {', '.join(one['signed_by'])}: "
            f"{one['signatures']} of {one['threshold']} signatures of the new root's keys\n  expires {one['expires']}"
            + "".join(f"\n  {role}: {keys}" for role, keys in one["roles"].items())
        )
    return parts


def _releases(rows: list[Mapping[str, Any]]) -> str:
    cells = []
    for one in rows:
        rules = {**one, **one.get("rules", {})}
        marks = [
            *([f"floor {rules['floor']}"] if rules.get("floor") else []),
            *(["barrier"] if rules.get("barrier") else []),
            *([f"withdrawn: {rules['yanked']}"] if rules.get("yanked") else []),
            *([f"paused: {rules['paused']}"] if rules.get("paused") else []),
            *(f"{float(wave['fraction']):.0%} from {wave['start']}" for wave in rules.get("waves") or ()),
        ]
        name = one.get("product", "appliance") + (f" ({one['kind']})" if one.get("kind", "binary") != "binary" else "")
        cells.append((one["channel"], name, one["version"], one["architecture"], size(one["length"]), ", ".join(marks)))
    return f"{len(rows)}\n{table(('channel', 'product', 'version', 'architecture', 'size', 'rules'), cells)}"


def _rules(rules: Mapping[str, Any]) -> str:
    lines = []
    if "paused" in rules:
        lines.append(f"  paused: {rules['paused']}")
    if "minimum" in rules:
        lines.append(f"  nothing older than {rules['minimum']}")
    lines += [f"  {version} is withdrawn: {why}" for version, why in rules.get("yanked", {}).items()]
    lines += [f"  {version} is a dead end: {why}" for version, why in rules.get("dead_ends", {}).items()]
    return "\n".join(lines)
