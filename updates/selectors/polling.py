"""How often a page looks again at what runs."""

from __future__ import annotations

from datetime import datetime, timedelta

# Look often while someone waits, and less the longer it takes: (age, seconds between looks).
POLL_PERIODS = ((timedelta(minutes=1), 1), (timedelta(minutes=10), 2), (timedelta(hours=1), 5))
SLOWEST_POLL_SECONDS = 15


def poll_seconds(created_at: datetime, now: datetime) -> int:
    """How long a page waits before it looks again at an operation of this age."""
    age = now - created_at
    return next((seconds for limit, seconds in POLL_PERIODS if age < limit), SLOWEST_POLL_SECONDS)
