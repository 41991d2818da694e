"""The recorded releases, and moments."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path

from patching.release_files import load_releases
from patching.terms import Release

DATA = Path(__file__).resolve().parents[2] / "updates" / "data"


CHANGES = Path(__file__).resolve().parent / "data" / "release_changes_2026-11.json"


@lru_cache(maxsize=1)
def as_shipped() -> tuple[Release, ...]:
    """What the shipped file records."""
    return load_releases(json.loads((DATA / "hotpatch_releases.json").read_text()))


@lru_cache(maxsize=1)
def releases() -> tuple[Release, ...]:
    """Everything recorded, the changes of November 2026 included (a no-op for what the shipped file has already)."""
    changes = json.loads(CHANGES.read_text())
    rows = list(as_shipped())
    for release in load_releases([row for part in changes.values() for row in part]):
        rows = [row for row in rows if not _is_same(row, release)]
        rows.append(release)
    return tuple(rows)


def _is_same(row: Release, release: Release) -> bool:
    """One release is (product line, KB), else (product line, month, type) where one of the two has no KB."""
    if row.product_line is not release.product_line:
        return False
    if row.kb_number and release.kb_number:
        return row.kb_number == release.kb_number
    return (row.month, row.type) == (release.month, release.type)


@lru_cache(maxsize=1)
def before_the_changes() -> tuple[Release, ...]:
    """A catalogue that lacks what the changes brought, with holes at its end: WS2022 up to 2026-09, WS2025 likewise."""
    changes = json.loads(CHANGES.read_text())
    new = {
        (release.product_line, release.month, release.type, release.kb_number)
        for release in load_releases([*changes["missing"], *changes["before_2024"]])
    }
    builds = {release.kb_number for release in load_releases(changes["corrections"]) if release.kb_number}
    kept = (r for r in releases() if (r.product_line, r.month, r.type, r.kb_number) not in new)
    without = (replace(r, build="") if r.kb_number in builds else r for r in kept)
    return tuple(replace(r, kb_number="", build="") if r.kb_number == "5122871" else r for r in without)


def day(text: str) -> date | None:
    """A day, None for an empty cell."""
    return date.fromisoformat(text) if text else None


def month(text: str) -> date | None:
    """The first day of a month, None for an empty cell."""
    return date.fromisoformat(f"{text}-01") if text else None


def moment(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
