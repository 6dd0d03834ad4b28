"""Is it well? One check: an HTTP GET, a TCP connection, or a command that must exit 0."""

from __future__ import annotations

from collections.abc import Callable

import trio

from appliance.errors import ApplianceError
from appliance.host.processes import Command, Processes
from appliance.schema import quote
from appliance.units.health_section import HealthSection

_ANSWER_BYTES_MAX = 4096
_BODY_BYTES_MAX = 1 << 20


async def check_health(health: HealthSection, processes: Processes, command: Callable[[], Command]) -> str:
    """Empty when it is well, else what is wrong. Takes at most ``health.timeout``.

    ``command``: gives ``health.command`` as one of the unit itself, in its fences.
    """
    with trio.move_on_after(health.timeout) as scope:
        try:
            if health.http is not None:
                return await _check_http(health, health.http)
            if health.tcp is not None:
                await _check_tcp(health.tcp)
                return ""
            return await _check_command(health.timeout, processes, command)
        except (OSError, trio.BrokenResourceError) as exc:
            return f"cannot reach {health.http or health.tcp}: {exc}"
    assert scope.cancelled_caught
    return f"no answer within {health.timeout:g} s"


async def _check_http(health: HealthSection, url: str) -> str:
    authority, slash, path = url.removeprefix("http://").partition("/")
    host, port = _split_address(authority, 80)
    async with await trio.open_tcp_stream(host, port) as stream:
        request = f"GET {slash}{path} HTTP/1.1" if slash else "GET / HTTP/1.1"
        who = f"Host: {health.host or authority}"
        lines = (request, who, "User-Agent: appliance", "Accept: */*", "Connection: close", "", "")
        await stream.send_all("\r\n".join(lines).encode())
        answer = b""
        most = _ANSWER_BYTES_MAX if health.expected is None else _BODY_BYTES_MAX
        while len(answer) < most and (health.expected is not None or b"\n" not in answer):
            piece = await stream.receive_some(_ANSWER_BYTES_MAX)
            if not piece:
                break
            answer += piece
            if health.expected is not None and _holds(answer, health.expected):
                break
    words = answer.split(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"{url} does not answer in HTTP"
    status = int(words[1][:3])
    if status not in health.status if health.status else not 200 <= status < 400:
        return f"{url} answers {words[1].decode()[:10]}"
    if health.expected is not None and not _holds(answer, health.expected):
        return f"{url} answers without {quote(health.expected)}"
    return ""


def _holds(answer: bytes, expected: str) -> bool:
    """Whether the body does; it may come in chunks, each with its size in a line before it (RFC 9112, 7.1)."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        whole, rest = b"", body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            try:
                count = int(size.partition(b";")[0], 16)
            except ValueError:
                break
            whole, rest = whole + rest[:count], rest[count + 2 :]
        body = whole
    return expected.encode() in body


async def _check_tcp(address: str) -> None:
    host, port = _split_address(address, 0)
    async with await trio.open_tcp_stream(host, port):
        pass


async def _check_command(timeout: float, processes: Processes, command: Callable[[], Command]) -> str:
    try:
        it = command()
        finished = await processes.run_command(
            it.argv, timeout=timeout, environment=it.environment, directory=it.directory, uid=it.uid, gid=it.gid,
            groups=it.groups, cgroup=it.cgroup, umask=it.umask, options=it.options,
        )  # fmt: skip
    except ApplianceError as exc:
        return exc.message
    if finished.timed_out:
        return f"no answer within {timeout:g} s"
    if finished.exit.clean:
        return ""
    said = (finished.stderr or finished.stdout).decode(errors="replace").strip().rpartition("\n")[2][:200]
    return f"{it.argv[0]} {finished.exit}" + (f": {said}" if said else "")


def _split_address(address: str, port: int) -> tuple[str, int]:
    host, colon, number = address.rpartition(":")
    if not colon or number.endswith("]"):
        return address.strip("[]"), port
    return host.strip("[]"), int(number)
