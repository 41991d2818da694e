"""The recorded releases, and moments."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path

from patching.release_files import load_releases
from patching.terms import Release

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


@lru_cache(maxsize=1)
def releases() -> tuple[Release, ...]:
    """Everything recorded."""
    return load_releases(json.loads((DATA / "hotpatch_releases.json").read_text()))


def day(text: str) -> date | None:
    """A day, None for an empty cell."""
    return date.fromisoformat(text) if text else None


def month(text: str) -> date | None:
    """The first day of a month, None for an empty cell."""
    return date.fromisoformat(f"{text}-01") if text else None


def moment(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
