from __future__ import annotations

import pytest
import trio

from appliance.errors import InputError
from appliance.supervisor import Bug, contain


async def divide() -> float:
    return 1 / 0


async def refuse() -> float:
    raise InputError("cannot divide")


async def answer() -> float:
    return 42.0


async def test_a_bug_is_handed_back_our_errors_and_a_cancel_pass() -> None:
    assert await contain(answer) == 42.0
    bug = await contain(divide)
    assert isinstance(bug, Bug)
    assert isinstance(bug.fault, ZeroDivisionError)
    with pytest.raises(InputError):
        await contain(refuse)
    with trio.CancelScope() as scope:
        scope.cancel()
        await contain(trio.sleep_forever)
    assert scope.cancelled_caught
