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


# What the corrections of November 2026 brought: releases that were missing, and builds.
ADDED_KBS = frozenset(
    [
        "5037422",
        "5041054",
        "5044284",
        "5052819",
        "5058920",
        "5059092",
        "5061906",
        "5070884",
        "5077800",
        "5078136",
        "5082314",
        "5091575",
        "5120233",
        "5129235",
        "5129237",
    ]
)
ADDED_WITHOUT_KB = frozenset({("ws2022", "2026-10", "baseline"), ("ws2022", "2026-11", "lcu")})
CORRECTED_KBS = frozenset(
    [
        "5059087",
        "5061977",
        "5064489",
        "5068221",
        "5070773",
        "5070893",
        "5072359",
        "5077793",
        "5078135",
        "5091157",
        "5091470",
        "5091576",
        "5094125",
        "5099536",
        "5099540",
        "5120228",
        "5122871",
    ]
)


@lru_cache(maxsize=1)
def releases() -> tuple[Release, ...]:
    """What the shipped file records."""
    return load_releases(json.loads((DATA / "hotpatch_releases.json").read_text()))


@lru_cache(maxsize=1)
def before_the_changes() -> tuple[Release, ...]:
    """A catalogue that lacks what the changes brought, with holes at its end: WS2022 up to 2026-09, WS2025 likewise."""
    kept = (
        r
        for r in releases()
        if r.month.year >= 2024
        and r.kb_number not in ADDED_KBS
        and (r.kb_number or (r.product_line.value, f"{r.month:%Y-%m}", r.type.value) not in ADDED_WITHOUT_KB)
    )
    without = (replace(r, build="") if r.kb_number in CORRECTED_KBS else r for r in kept)
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
