"""Prometheus text (exposition format 0.0.4): a pure writer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric with all its samples."""

    name: str
    kind: str  # gauge or counter
    text: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """One sample; None is left out."""
        if value is not None:
            self.samples.append((tuple(labels.items()), float(value)))


class Exposition:
    """Families in the order they came, each once."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def gauge(self, name: str, text: str) -> Family:
        """What goes up and down."""
        return self._families.setdefault(name, Family(name, "gauge", text))

    def counter(self, name: str, text: str) -> Family:
        """What only goes up; its name ends in _total."""
        return self._families.setdefault(name, Family(name, "counter", text))

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return "".join(_lines(self._families.values())).encode()


def _lines(families: Iterable[Family]) -> Iterable[str]:
    for family in families:
        if family.samples:
            yield f"# HELP {family.name} {_escape(family.text)}\n# TYPE {family.name} {family.kind}\n"
            for labels, value in family.samples:
                inner = ",".join(f'{name}="{_escape(text, quote=True)}"' for name, text in labels)
                yield f"{family.name}{{{inner}}} {_number(value)}\n" if inner else f"{family.name} {_number(value)}\n"


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
