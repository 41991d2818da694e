"""Azure's public regions: the clock of each, and its partners (`vms/data/regions.json` names the sources).

Names of regions compare without case and without blanks: "Japan East" is japaneast.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from patching.recurrence import windows_zones, zone_of

DATA = Path(__file__).resolve().parent / "data" / "regions.json"


@dataclass(frozen=True, slots=True)
class Region:
    """One row of the data. `paired_region` empty: none; a pair need not be told by both of its regions."""

    name: str
    display_name: str
    place: str
    time_zone: str  # of the IANA database
    paired_region: str
    source: str


@cache
def regions() -> Mapping[str, Region]:
    """Every region by its programmatic name."""
    rows = json.loads(DATA.read_text(encoding="utf-8"))["regions"]
    return {row["name"]: Region(**row) for row in rows}


@cache
def region_pairs() -> Mapping[str, frozenset[str]]:
    """The partners of each region that has one, whichever of the two tells of the pair."""
    partners: dict[str, set[str]] = {}
    for region in regions().values():
        if region.paired_region:
            partners.setdefault(region.name, set()).add(region.paired_region)
            partners.setdefault(region.paired_region, set()).add(region.name)
    return {name: frozenset(found) for name, found in partners.items()}


def region_name(text: str) -> str:
    """How this portal writes the name of a region: lower case, no blanks, full-width letters as their plain twins."""
    return "".join(unicodedata.normalize("NFKC", text).split()).lower()


@lru_cache(maxsize=1_024)
def clock_of(time_zone: str, location: str) -> ZoneInfo | None:
    """The clock of a VM: its Windows time zone, else its region's. None: nobody knows it."""
    try:
        return zone_of(time_zone)
    except KeyError:
        region = regions().get(region_name(location))
    return ZoneInfo(region.time_zone) if region else None


@cache
def every_clock() -> tuple[ZoneInfo, ...]:
    """Every clock that a VM can have, by name."""
    names = {zone_of(name).key for name in windows_zones()} | {region.time_zone for region in regions().values()}
    return tuple(ZoneInfo(name) for name in sorted(names))
