"""Badges: every member of an enum that pages show has one, and no page asks for one that is not there."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from ui.badges import UNKNOWN, Badge, badge_of, register, registered
from updates.badges import BADGES as OF_UPDATES
from vms.badges import BADGES as OF_MACHINES

ROOT = Path(__file__).resolve().parents[2]
OURS = {**OF_MACHINES, **OF_UPDATES}
TONES = {"success", "warning", "danger", "info", "neutral"}
# What a template or a tag asks for: the kind, and the value where it stands there.
ASKED = re.compile(r"""(?:{% badge |\bbadge(?:_cell|_of)?\()"(\w+)",? (?:"(\w+)")?""")


class Weather(StrEnum):
    SUN = "sun"
    RAIN = "rain"


@pytest.mark.parametrize("kind", sorted(OURS))
def test_every_member_of_a_shown_enum_has_a_badge(kind: str) -> None:
    (enum,) = {type(member) for member in OURS[kind]}
    assert registered()[kind] == {str(member.value): OURS[kind][member] for member in enum}
    assert {badge.tone for badge in OURS[kind].values()} <= TONES


def test_every_badge_that_pages_ask_for_is_there() -> None:
    asked = [
        (str(path.relative_to(ROOT)), *found)
        for folder in ("templates", "vms/templatetags", "updates/templatetags")
        for path in sorted((ROOT / folder).rglob("*.*"))
        if path.suffix in {".html", ".py"}
        for found in ASKED.findall(path.read_text())
    ]
    assert len(asked) > 50
    known = registered()
    assert [row for row in asked if row[1] not in known or (row[2] and row[2] not in known[row[1]])] == []
    assert set(OURS) - {kind for _name, kind, _value in asked} == set(), "registered and shown nowhere"


def test_a_member_without_a_badge_is_refused() -> None:
    for badges in ({}, {Weather.SUN: UNKNOWN}):
        with pytest.raises(ValueError, match="weather"):
            register("weather", badges)
    assert "weather" not in registered()


def test_a_kind_means_one_enum() -> None:
    register("grade", OURS["grade"])  # an app that is made ready twice
    with pytest.raises(ValueError, match="grade is registered twice"):
        register("grade", {member: Badge("info", "clock") for member in Weather})


def test_a_value_of_a_later_version_is_unknown() -> None:
    assert badge_of("grade", "of tomorrow") == UNKNOWN
