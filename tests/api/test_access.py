from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.api.access import ControlDoor
from appliance.api.router import Answer, Reply, Request, Route
from appliance.errors import UntrustedError
from appliance.host.sockets import Peer


async def handler(request: Request) -> Reply:
    return Answer(b"")


READ = Route(method="GET", pattern="/x", handler=handler, summary="", answer="", control=True)
ACT = replace(READ, method="POST", reads=False)
DOOR = ControlDoor(own_uid=500, group=77)


@pytest.mark.parametrize(
    ("peer", "reads", "acts"),
    [
        (Peer(1, 0, frozenset({0})), True, True),
        (Peer(1, 500, frozenset({500})), True, True),
        (Peer(1, 501, frozenset({501, 77})), True, False),
        (Peer(1, 501, frozenset({501})), False, False),
        (Peer(1, 501, frozenset({0})), False, False),  # the group of root is not root
    ],
)
def test_control(peer: Peer, reads: bool, acts: bool) -> None:
    for route, allowed in ((READ, reads), (ACT, acts)):
        if allowed:
            DOOR.check({}, route, DOOR.caller(peer))
        else:
            with pytest.raises(UntrustedError, match=r"cannot (GET|POST) /x as uid"):
                DOOR.check({}, route, DOOR.caller(peer))


def test_without_the_group_nobody_is_in_it() -> None:
    assert not ControlDoor(500, None).caller(Peer(1, 501, frozenset({77}))).reads
