"""Our data in the schema of this version; the version before always finds its own.

Each schema has a directory of its own. A version that finds none of its schema copies the newest older one, migrates
the copy, and gives it the name when it is whole and on the disk: on trial as well as for good. The older one is not
touched. So a trial that ends badly leaves the old version with what it had; what clients wrote during that trial goes
with it. Back by hand, months later: the version that leaves migrates a copy of its data back, and gives it to the old
one. An older schema's copy is removed once another version than the one that migrated it runs for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.errors import ApplianceError, ConflictError, InputError
from appliance.host import files, trees
from appliance.host.failpoint import reach
from appliance.host.layout import Layout
from appliance.update import migrations
from appliance.update.migrations import Migration
from appliance.version import SCHEMA

_MADE_BY = "made-by"
Say = Callable[[str], None]


def settle(
    layout: Layout,
    *,
    version: str,
    trial: bool,
    say: Say,
    schema: int = SCHEMA,
    known: Sequence[Migration] | None = None,
) -> str:
    """The directory of our schema, made if need be. Raises ConflictError: what is here is newer than we are."""
    known = migrations.MIGRATIONS if known is None else known
    if files.exists(_going_back(layout)):  # a state that is read only is not touched, and keeps nobody from starting
        files.remove(_going_back(layout))
    here = _schemas(layout)
    place = _place(layout, schema)
    if not trial:
        for newer in [one for one in here if one > schema and schema in here]:
            say(f"data of schema {newer} is removed: the version that made it was left")
            _drop(layout, newer)
        made_by = _made_by(layout, schema)
        if schema in here and made_by and made_by != version:
            for older in [one for one in here if one < schema]:
                _drop(layout, older)
    if schema in here or not here:
        return place + "/store"
    before = [one for one in here if one < schema]
    if not before:
        raise ConflictError(
            f"cannot start: the data here is of schema {min(here)}, version {version} knows {schema} at most; start a "
            "newer one",
            where=layout.state,
        )
    say(f"data of schema {before[-1]} is copied and migrated to {schema}")
    _migrate(layout, before[-1], schema, version, [one.forward for one in _way(known, before[-1], schema)])
    return place + "/store"


def ask_back(layout: Layout) -> None:
    """A person goes back to the version before: when our data is closed, it is migrated back for it."""
    if any(one < SCHEMA for one in _schemas(layout)):
        files.write_atomic(_going_back(layout), b"")


def go_back(
    layout: Layout, *, version: str, say: Say, schema: int = SCHEMA, known: Sequence[Migration] | None = None
) -> None:
    """If that was asked for. Never raises: the old version then finds its data as it left it, and ours is kept."""
    known = migrations.MIGRATIONS if known is None else known
    older = [one for one in _schemas(layout) if one < schema]
    if not files.exists(_going_back(layout)) or not older:
        return
    try:
        steps = [one.back for one in reversed(_way(known, older[-1], schema))]
        _migrate(layout, schema, older[-1], version, steps)
        say(f"data of schema {schema} is migrated back to {older[-1]}")
    except ApplianceError as error:
        say(
            f"{error}; schema {older[-1]} is as it was before the update, ours is kept in {_place(layout, schema)}.kept"
        )
        try:
            files.rename(_place(layout, schema), _place(layout, schema) + ".kept")
        except ApplianceError:
            return


def _migrate(layout: Layout, source: int, target: int, version: str, steps: Sequence[Callable[[str], None]]) -> None:
    """Copy, change the copy, sync it, and exchange the names."""
    place = _place(layout, target)
    fresh, gone = f"{layout.state}/migrating-{target}", f"{layout.state}/migrated-away-{target}"
    files.remove_tree(fresh)
    files.remove_tree(gone)
    files.make_directory(fresh)
    reach("migrate.begin")
    trees.copy_tree(_store(layout, source), fresh + "/store")
    reach("migrate.copied")
    for step in steps:
        step(fresh)
    files.write_atomic(f"{fresh}/{_MADE_BY}", version.encode())
    trees.sync_tree(fresh)
    reach("migrate.changed")
    if target == 1:  # where it was before there were schemas
        if files.exists(_store(layout, 1)):
            trees.exchange(fresh + "/store", _store(layout, 1))
        else:
            files.rename(fresh + "/store", _store(layout, 1))
        files.remove_tree(fresh)
    elif files.exists(place):
        trees.exchange(fresh, place)
        files.remove_tree(fresh)
    else:
        files.rename(fresh, place)
    reach("migrate.done")


def _way(known: Sequence[Migration], low: int, high: int) -> list[Migration]:
    found = [one for number in range(low + 1, high + 1) for one in known if one.schema == number]
    if len(found) != high - low:
        raise ConflictError(f"cannot migrate the data from schema {low} to {high}: this version does not know the way")
    return found


def _schemas(layout: Layout) -> list[int]:
    """Those that are here and whole, rising."""
    found = [1] if files.exists(layout.state + "/store") else []
    for name in files.list_directory(layout.state):
        word, dash, number = name.partition("-")
        if (word, dash) == ("data", "-") and number.isascii() and number.isdigit() and int(number) > 1:
            found.append(int(number))
    return sorted(found)


def _place(layout: Layout, schema: int) -> str:
    return layout.state if schema == 1 else f"{layout.state}/data-{schema}"


def _store(layout: Layout, schema: int) -> str:
    return _place(layout, schema) + "/store"


def _made_by(layout: Layout, schema: int) -> str:
    path = f"{_place(layout, schema)}/{_MADE_BY}"
    try:
        return files.read_text(path, size_max=256) if schema > 1 and files.exists(path) else ""
    except InputError:  # damaged: then nothing is dropped for its sake
        return ""


def _drop(layout: Layout, schema: int) -> None:
    """Under a name that nobody takes for whole first."""
    gone = f"{layout.state}/migrated-away-{schema}"
    files.remove_tree(gone)
    files.rename(_store(layout, 1) if schema == 1 else _place(layout, schema), gone)
    files.remove_tree(gone)


def _going_back(layout: Layout) -> str:
    return layout.state + "/going-back"
