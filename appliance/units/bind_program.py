"""Which addresses a unit may bind its sockets to, as programs for its cgroup (systemd.resource-control(5)). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from appliance.errors import InputError
from appliance.units.bpf_code import Code

_FAMILIES = {"ipv4": 4, "ipv6": 6}
_PROTOCOLS = {"tcp": 6, "udp": 17}
_PORT_AT, _PROTOCOL_AT = 24, 36  # of struct bpf_sock_addr
_PORT, _PROTOCOL = 2, 3  # registers
_EXPECTED = 'expected "any", or "ipv4:tcp:8080-8090" or a part of that'


@dataclass(frozen=True)
class BindRule:
    """None: any."""

    version: int | None = None
    protocol: int | None = None
    ports: tuple[int, int] | None = None


def parse_bind_rule(text: str) -> BindRule:
    """``[ipv4|ipv6:][tcp|udp:][PORT|PORT-PORT]`` or ``any``. Raises InputError."""
    words = text.split(":")
    if text == "any":
        return BindRule()
    version = _FAMILIES.get(words[0])
    rest = words[1:] if version is not None else words
    protocol = _PROTOCOLS.get(rest[0]) if rest else None
    rest = rest[1:] if protocol is not None else rest
    if rest in ([], [""], ["any"]) and text:
        return BindRule(version, protocol)
    first, dash, last = rest[0].partition("-") if len(rest) == 1 else ("", "", "")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise InputError(f'found "{text}", {_EXPECTED}')
    ports = int(first), int(last or first)
    if not 0 < ports[0] <= ports[1] <= 65535:
        raise InputError(f'found "{text}", expected ports from 1 to 65535')
    return BindRule(version, protocol, ports)


def rules_problem(rules: tuple[str, ...]) -> str | None:
    """Of ``socket_bind_allow`` and ``socket_bind_deny``."""
    for rule in rules:
        try:
            parse_bind_rule(rule)
        except InputError as error:
            return error.message
    return None


def bind_program(allow: Iterable[str], deny: Iterable[str], version: int) -> bytes:
    """Over struct bpf_sock_addr: what is allowed, then what is denied; the rest may."""
    code = Code()
    code.load(_PORT, 1, _PORT_AT)
    code.from_network(_PORT, 16)
    code.load(_PROTOCOL, 1, _PROTOCOL_AT)
    for rules, answer in ((allow, 1), (deny, 0)):
        for rule in map(parse_bind_rule, rules):
            if rule.version not in (None, version):
                continue
            other = code.new_mark()
            if rule.protocol is not None:
                code.jump_if(_PROTOCOL, "!=", rule.protocol, other)
            if rule.ports is not None:
                code.jump_if(_PORT, "<", rule.ports[0], other)
                code.jump_if(_PORT, ">", rule.ports[1], other)
            code.answer(answer)
            if not code.leads_to(other):  # it is for all: what follows is never reached
                return code.assemble()
            code.mark(other)
    code.answer(1)
    return code.assemble()
