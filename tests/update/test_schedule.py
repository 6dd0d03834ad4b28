"""Ten thousand hosts and one server: no thundering herd, whatever happens to all at once (docs/publishing.md)."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from appliance.update.schedule import first_delay, next_delay

HOSTS, INTERVAL, BUCKET = 10_000, 600.0, 10.0


def simulate(*, seconds: float, down: tuple[float, float] = (0.0, 0.0)) -> Counter[int]:
    """All start at 0, the server does not answer in ``down``; requests per ten seconds."""
    chance = random.Random(5).random
    queue = [(first_delay(INTERVAL, chance()), 0) for _ in range(HOSTS)]
    heapq.heapify(queue)
    buckets: Counter[int] = Counter()
    while queue[0][0] < seconds:
        at, failures = queue[0]
        buckets[int(at // BUCKET)] += 1
        failures = failures + 1 if down[0] <= at < down[1] else 0
        heapq.heapreplace(queue, (at + next_delay(INTERVAL, failures, chance()), failures))
    return buckets


def test_all_start_at_once_and_come_one_by_one() -> None:
    """After a power cut of the whole site: from the first second on there are no more than on any other day."""
    buckets = simulate(seconds=6 * INTERVAL)
    mean = HOSTS / INTERVAL * BUCKET
    assert max(buckets.values()) < 2 * mean  # where the first and the second checks overlap, at 0.9 of the interval
    last = [buckets[number] for number in range(int(5 * INTERVAL // BUCKET), int(6 * INTERVAL // BUCKET))]
    assert max(last) < mean + 6 * mean**0.5  # evenly spread at random: six standard deviations are never seen
    assert min(last) > mean - 6 * mean**0.5


@pytest.mark.parametrize("outage", [30.0, 300.0, 3600.0])
def test_a_server_that_comes_back_is_not_run_over(outage: float) -> None:
    """While it is down they ask more often at first (each some seconds after its own failure), then at the interval."""
    begin = 3 * INTERVAL
    buckets = simulate(seconds=begin + outage + 3 * INTERVAL, down=(begin, begin + outage))
    mean = HOSTS / INTERVAL * BUCKET
    first = int((begin + outage) // BUCKET)
    after = [buckets[number] for number in range(first, first + int(2 * INTERVAL // BUCKET))]
    assert max(after) < 4 * mean
    assert max(buckets.values()) < 4 * mean


def test_the_old_schedule_would_have_failed_this() -> None:
    """Thirty seconds for all first checks: the test above can fail."""
    chance = random.Random(5).random
    starts = Counter(int(30.0 * chance() // BUCKET) for _ in range(HOSTS))
    mean = HOSTS / INTERVAL * BUCKET
    assert max(starts.values()) > 15 * mean
