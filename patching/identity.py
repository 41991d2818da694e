"""What makes an update the same update: KB, update id, and which of two sightings is the newer one (docs/rules.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from patching.terms import Patch

_NUMBERS = re.compile(r"[0-9]+")


def version_order(version: str) -> tuple[int, ...]:
    """Sort key of a version, number by number: v5.128 comes after v5.99; an empty version comes first."""
    return tuple(int(number) for number in _NUMBERS.findall(version))


def identified(patches: tuple[Patch, ...]) -> tuple[Patch, ...]:
    """The updates of one assessment; those that share a KB of a product line are known by their update ids.

    A feature update carries the KB of that month's cumulative update: by the KB alone one of the two would be lost. Where
    nothing is shared the very same tuple comes back.
    """
    if len({patch.key for patch in patches}) == len(patches):
        return patches
    ids: dict[str, set[str]] = {}
    for patch in patches:
        ids.setdefault(patch.key, set()).add(patch.update_id)
    shared = {key for key, found in ids.items() if len(found) > 1}
    return tuple(
        replace(patch, is_known_by_id=True) if patch.key in shared and patch.update_id else patch for patch in patches
    )


def is_newer(seen: Patch, known: Patch) -> bool:
    """Whether a sighting of an update is newer than what is known of it, so that all of it replaces all of that.

    By version where they differ, else by date where both have one. Between equals the last sighting counts if it has
    another update id; a sighting that tells no version never replaces one that does, unless its date is later.
    """
    seen_version, known_version = version_order(seen.version), version_order(known.version)
    if seen_version and seen_version != known_version:
        return seen_version > known_version
    if seen.published_on and known.published_on and seen.published_on != known.published_on:
        return seen.published_on > known.published_on
    return bool(seen.update_id) and seen.update_id != known.update_id and seen_version == known_version


def newest_of_each(patches: Iterable[Patch]) -> dict[str, Patch]:
    """One sighting of each update by its catalogue key: the newest."""
    found: dict[str, Patch] = {}
    for patch in patches:
        known = found.get(patch.key)
        if known is None or is_newer(patch, known):
            found[patch.key] = patch
    return found


def is_same_update(one: Patch, other: Patch) -> bool:
    """Whether two sightings are the same update: the same update id; without ids the same KB and version."""
    if one.update_id and other.update_id:
        return one.update_id == other.update_id
    return one.key == other.key and version_order(one.version) == version_order(other.version)
