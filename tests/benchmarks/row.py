"""One line of the benchmark table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured, ours and the peer's in the same unit and the same run; ``aim`` is the issue's figure."""

    name: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    aim: str = ""

    @property
    def ours_text(self) -> str:
        """Figure and unit."""
        return f"{self.ours:,.4g} {self.unit}"

    @property
    def theirs_text(self) -> str:
        """Figure and unit, or a dash."""
        return "-" if self.theirs is None else f"{self.theirs:,.4g} {self.unit}"

    @property
    def ratio_text(self) -> str:
        """Ours / theirs."""
        return "-" if not self.theirs else f"{self.ours / self.theirs:.2f} x"
