"""docs/units.md names every key of a unit file, with the default that it has."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from appliance.units.command_lines import CommandTable
from appliance.units.conditions import ConditionsSection
from appliance.units.resource_sections import IoLimitTable
from appliance.units.restart_section import LimitTable
from appliance.units.trigger_sections import (
    PathSection,
    SocketOptionsTable,
    SocketSection,
    TimerSection,
    TriggerLimitTable,
)
from appliance.units.unit_file import UnitDocument

TEXT = (Path(__file__).parents[2] / "docs/units.md").read_text()
TYPES = {
    "conditions": ConditionsSection, "timer": TimerSection, "socket": SocketSection, "path": PathSection,
}  # fmt: skip
INNER = {
    "[unit.conditions] and [unit.asserts]": ConditionsSection,
    "A command as a table": CommandTable,
    "[restart] limit": LimitTable,
    "[[resources.io_max]]": IoLimitTable,
    "trigger_limit": TriggerLimitTable,
    "[[socket]] options": SocketOptionsTable,
}


def sections() -> dict[str, type]:
    found = dict(INNER)
    for one in dataclasses.fields(UnitDocument):
        title = "[[socket]]" if one.name == "socket" else f"[{one.name}]"
        if one.name in TYPES:
            found[title] = TYPES[one.name]
        elif one.default is not dataclasses.MISSING and one.default is not None:
            found[title] = type(one.default)
        elif one.default_factory is not dataclasses.MISSING:
            found[title] = type(one.default_factory())
        else:
            name = str(one.type).partition(" ")[0]
            found[title] = getattr(__import__("appliance.units.unit_file", fromlist=[name]), name)
    return found


def words(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "infinity" if math.isinf(value) else f"{value:g}s"
    return "" if value in (None, (), {}, "") else str(value)


@pytest.mark.parametrize("title", sections())
def test_every_key_and_its_default(title: str) -> None:
    chapter = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert chapter is not None, f"no chapter {title}"
    rows = re.findall(r"^\| `(\w+)` \| ?(.*?) ?\| .*\S.* \|$", chapter[1], re.MULTILINE)
    wanted = []
    for one in dataclasses.fields(sections()[title]):
        if one.default_factory is not dataclasses.MISSING:
            value = words(one.default_factory())
        else:
            value = "must be set" if one.default is dataclasses.MISSING else words(one.default)
        wanted.append((one.name.rstrip("_"), value))
    assert rows == wanted


def test_no_chapter_of_a_table_that_is_gone() -> None:
    assert set(re.findall(r"^## (.*)$", TEXT, re.MULTILINE)) == sections().keys()
