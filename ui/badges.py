"""The colour and the icon of a status value; its word comes from its choices. Colour is never alone.

Each app registers the badges of its own enums when it is ready: nothing here knows their words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Badge:
    """A tone (success, warning, danger, info, neutral) and an icon's name."""

    tone: str
    icon: str


UNKNOWN = Badge("neutral", "circle-question-mark")
_registered: dict[str, dict[str, Badge]] = {}


def register(kind: str, badges: Mapping[Enum, Badge]) -> None:
    """Let pages show the values of an enum by `{% badge kind value label %}`.

    Raises `ValueError` if a member has no badge, or if the kind has badges of another enum already.
    """
    enums = {type(member) for member in badges}
    if len(enums) != 1:
        raise ValueError(f"the badges of {kind} are not of one enum")
    if without := [member.name for member in enums.pop() if member not in badges]:
        raise ValueError(f"{kind} has no badge for {', '.join(without)}")
    by_value = {str(member.value): badge for member, badge in badges.items()}
    if _registered.setdefault(kind, by_value) != by_value:
        raise ValueError(f"{kind} is registered twice")


def registered() -> dict[str, dict[str, Badge]]:
    """Every badge, by kind and value."""
    return {kind: dict(badges) for kind, badges in _registered.items()}


def badge_of(kind: str, value: str) -> Badge:
    """The badge of a value; what has none of its own, since a later version wrote it, is unknown."""
    return _registered[kind].get(value, UNKNOWN)
