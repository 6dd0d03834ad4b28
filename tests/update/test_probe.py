"""Declared checks against real servers and commands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from appliance.update.probe import failed_checks
from appliance.update.settings import HealthCheck


async def run_command(argv: Sequence[str], timeout: float) -> str:
    return "" if argv[0] == "/bin/true" else "exited with code 1: broken"


async def answer_with(answer: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        if not answer:
            await trio.sleep_forever()
        await stream.receive_some(4096)
        await stream.send_all(answer)


async def probe(answer: bytes, **check: object) -> tuple[str, ...]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, partial(answer_with, answer), 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        filled = {name: value.replace("PORT", str(port)) if isinstance(value, str) else value
                  for name, value in check.items()}  # fmt: skip
        wrong = await failed_checks([HealthCheck(**filled)], run_command)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()
    return tuple(one.replace(str(port), "PORT") for one in wrong)


async def test_http() -> None:
    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert await probe(ok, http="http://127.0.0.1:PORT/ready?x=1") == ()
    assert await probe(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", http="http://127.0.0.1:PORT") == (
        "check http http://127.0.0.1:PORT: it answers 503",
    )
    (said,) = await probe(b"SSH-2.0-OpenSSH_9\r\n\r\n", http="http://127.0.0.1:PORT")
    assert said.startswith("check http")
    (said,) = await probe(b"", http="http://127.0.0.1:PORT", timeout=0.2)
    assert said.endswith("no answer in 0.2 s")


async def test_tcp() -> None:
    assert await probe(b"", tcp="127.0.0.1:PORT") == ()
    (said,) = await failed_checks([HealthCheck(tcp="127.0.0.1:1")], run_command)
    assert "refused" in said or "failed" in said


async def test_commands_all_at_once_in_their_order() -> None:
    checks = [HealthCheck(command=("/bin/false", "x")), HealthCheck(command=("/bin/true",)), HealthCheck(tcp="[::1]:1")]
    wrong = await failed_checks(checks, run_command)
    assert wrong[0] == "check command /bin/false x: exited with code 1: broken"
    assert len(wrong) == 2
