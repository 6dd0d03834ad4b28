"""How soon a service that went down is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Restart:
    """Capped doubling backoff; failures are forgotten after ``quiet`` seconds of being ready."""

    first_delay: float = 1.0
    delay_max: float = 60.0
    attempts_max: int | None = None  # None: never give up
    quiet: float = 120.0

    def delay(self, failures: int) -> float | None:
        """Seconds to wait after that many failures in a row; None: give up.

        The exponent is capped, for 2.0 ** 1024 overflows a float and would take the supervisor with it.
        """
        if failures < 1:
            raise AssertionError(f"delay asked after {failures} failures")
        if self.attempts_max is not None and failures >= self.attempts_max:
            return None
        return min(self.first_delay * 2.0 ** min(failures - 1, 32), self.delay_max)

    def failures_after(self, failures: int, ready_seconds: float) -> int:
        """How many failures in a row it has after going down once more, having been ready that long."""
        return 1 if ready_seconds >= self.quiet else failures + 1
