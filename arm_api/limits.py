"""How much one principal may ask: buckets of requests, as Azure Resource Manager has them.

They live in the memory of each web process: a limit holds for the requests that one process gets. What they protect is that
process; what machines can take is kept by the engine's own budgets, in the database.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MOST_BUCKETS = 20_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket of `burst` requests, refilled by `per_second`."""

    name: str
    burst: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What taking one request out of a bucket said: how many are left, or after how many seconds there is one again."""

    left: int
    retry_after: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there was none."""
        return self.retry_after > 0


class Buckets:
    """The buckets of one process; those that were not asked for longest are forgotten first, when they are full again."""

    def __init__(self) -> None:
        self.clock = time.monotonic
        self._lock = threading.Lock()
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, limit: Limit, *of: Hashable) -> Taken:
        """Take one request out of the bucket of this limit and these keys."""
        key, now = (limit.name, *of), self.clock()
        with self._lock:
            level, at = self._levels.pop(key, (float(limit.burst), now))
            level = min(limit.burst, level + (now - at) * limit.per_second)
            is_there = level >= 1
            self._levels[key] = (level - 1 if is_there else level, now)
            while len(self._levels) > MOST_BUCKETS:
                self._levels.popitem(last=False)
        if is_there:
            return Taken(int(level - 1))
        return Taken(0, (1 - level) / limit.per_second)

    def forget(self) -> None:
        """Fill every bucket."""
        with self._lock:
            self._levels.clear()


BUCKETS = Buckets()
