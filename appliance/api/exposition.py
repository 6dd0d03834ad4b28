"""Prometheus text (exposition format 0.0.4) and OpenMetrics 1.0: a pure writer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
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
        """What goes up and down; what only says something by its labels has a name that ends in _info."""
        return self._families.setdefault(name, Family(name, "gauge", text))

    def counter(self, name: str, text: str) -> Family:
        """What only goes up; its name ends in _total."""
        return self._families.setdefault(name, Family(name, "counter", text))

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return "".join(
            f"# HELP {one.name} {_escape(one.text)}\n# TYPE {one.name} {one.kind}\n{_samples(one)}"
            for one in self._filled()
        ).encode()

    def open_metrics(self) -> bytes:
        """The same as OpenMetrics: a family has the name without what its kind puts behind it."""
        pages = []
        for one in self._filled():
            name, kind = one.name.removesuffix("_total"), one.kind
            if kind == "gauge" and name.endswith("_info"):
                name, kind = name.removesuffix("_info"), "info"
            pages.append(f"# TYPE {name} {kind}\n# HELP {name} {_escape(one.text, quote=True)}\n{_samples(one)}")
        return "".join([*pages, "# EOF\n"]).encode()

    def _filled(self) -> Iterable[Family]:
        return (family for family in self._families.values() if family.samples)


def wants_open_metrics(accept: str) -> bool:
    """Whether who asks likes OpenMetrics 1.0 at least as much as plain text (RFC 9110, 12.5.1)."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *words = (word.strip() for word in part.split(";"))
        said = dict(word.partition("=")[::2] for word in words)
        if kind in weights and said.get("version", "1.0.0") in ("1.0.0", "0.0.4"):
            weights[kind] = max(weights[kind], _weight(said.get("q", "1")))
    return 0 < weights["application/openmetrics-text"] >= weights["text/plain"]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _samples(family: Family) -> str:
    lines = []
    for labels, value in family.samples:
        inner = ",".join(f'{name}="{_escape(text, quote=True)}"' for name, text in labels)
        lines.append(f"{family.name}{{{inner}}} {_number(value)}\n" if inner else f"{family.name} {_number(value)}\n")
    return "".join(lines)


def _escape(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
