"""The geometry of the hotpatch train."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from ui.train import Band, Between, Certainty, Kind, Opening, Quarter, Stop, Train

HOSTILE = '"><script>alert(1)</script>{{ x }}&amp;'
STARTS = [datetime(2026 + number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in range(13)]
kinds = st.sampled_from(Kind)
moments = st.datetimes(min_value=datetime(2025, 12, 1), max_value=datetime(2027, 2, 1), timezones=st.just(UTC))


def stop(place: int, kind: Kind, certainty: Certainty = Certainty.RECORDED, words: str = "x") -> Stop:
    at = STARTS[place] + timedelta(days=12)
    return Stop(STARTS[place], STARTS[place + 1], at, kind, certainty, words, words, words, words, words)


def train(*some: Kind, **more: object) -> Train:
    stops = tuple(stop(place, kind) for place, kind in enumerate(some))
    return Train("t", "title", "words", stops, **more)  # type: ignore[arg-type]


def first(*some: Kind, **more: object) -> Quarter:
    return train(*some, **more).quarters[0]


def number(place: str) -> float:
    return float(place.removesuffix("%"))


ORDINARY = (Kind.PLANNED, Kind.HOTPATCH, Kind.HOTPATCH)


def test_a_year_has_four_quarters_of_three_months() -> None:
    assert [len(quarter.stops) for quarter in train(*ORDINARY * 4).quarters] == [3, 3, 3, 3]


def test_hotpatches_hang_on_their_baseline() -> None:
    quarter = first(*ORDINARY)
    assert len(quarter.blocks) == 1
    assert [rail.path for rail in quarter.rails] == ["M0 124C55 124 45 58 100 58", "M0 58C55 58 45 58 100 58"]


def test_an_unplanned_baseline_begins_a_base_of_its_own() -> None:
    quarter = first(Kind.PLANNED, Kind.UNPLANNED, Kind.HOTPATCH)
    assert [round(number(block.width)) for block in quarter.blocks] == [32, 65]
    assert len(quarter.rails) == 1  # nothing leads to a base
    assert len(first(Kind.PLANNED, Kind.HOTPATCH, Kind.UNPLANNED).rails) == 1


def test_what_is_not_known_is_hatched_and_its_track_open() -> None:
    stops = (stop(0, Kind.PLANNED), stop(1, Kind.HOTPATCH, Certainty.MISSING), stop(2, Kind.HOTPATCH))
    quarter = Train("t", "t", "t", stops).quarters[0]
    assert [block.is_hatched for block in quarter.blocks] == [False, True]
    assert [rail.is_certain for rail in quarter.rails] == [False, False]


def test_a_month_before_the_line_is_not_drawn() -> None:
    quarter = first(Kind.NOTHING, Kind.HOTPATCH, Kind.HOTPATCH)
    assert len(quarter.drawn) == 2
    assert len(quarter.rails) == 1


def test_after_the_end_every_month_stands_on_the_ground() -> None:
    quarter = first(*[Kind.CUMULATIVE] * 3)
    assert len(quarter.blocks) == 3
    assert quarter.rails == ()


@given(st.lists(kinds, min_size=3, max_size=3))
def test_blocks_overlap_nowhere(some: list[Kind]) -> None:
    blocks = [block for block in first(*some).blocks if not block.is_hatched]
    assert all(number(one.x) + number(one.width) <= number(other.x) + 0.01 for one, other in pairwise(blocks))
    assert all(number(block.x) + number(block.width) <= 100 for block in blocks)


@given(st.lists(moments, max_size=60))
def test_marks_keep_their_distance_and_their_order(when: list[datetime]) -> None:
    whole = train(
        *ORDINARY * 4,
        openings=tuple(Opening(at, at.isoformat()) for at in when),
        between=tuple(Between(at, at.day % 2 == 0, "d", at.isoformat()) for at in when),
    )
    for quarter in whole.quarters:
        places = [number(mark.x) for mark in quarter.windows]
        assert all(other - one >= 3.49 for one, other in pairwise(places))
        assert all(0 <= place <= 100 for place in places)
        assert quarter.windows or not [at for at in when if quarter.stops[0].starts <= at < quarter.stops[-1].ends]


def test_a_window_before_the_release_stands_left_of_it() -> None:
    at = stop(1, Kind.HOTPATCH).at
    quarter = first(
        *ORDINARY, openings=(Opening(at - timedelta(hours=1), "early"), Opening(at + timedelta(days=4), "late"))
    )
    early, late = (number(mark.x) for mark in quarter.windows)
    assert early < 50 < late


def test_today_is_in_one_quarter_only() -> None:
    now = datetime(2026, 8, 1, tzinfo=UTC)
    assert [bool(quarter.now_x) for quarter in train(*ORDINARY * 4, now=now).quarters] == [False, False, True, False]
    outside = datetime(2030, 8, 1, tzinfo=UTC)
    assert not any(quarter.now_x for quarter in train(*ORDINARY * 4, now=outside).quarters)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("certainty", Certainty)
def test_hostile_words_are_text(kind: Kind, certainty: Certainty) -> None:
    stops = tuple(stop(place, kind, certainty, HOSTILE) for place in range(3))
    at = STARTS[1] + timedelta(days=3)
    whole = Train(
        "t",
        HOSTILE,
        HOSTILE,
        stops,
        (Between(at, is_hotpatch=True, day=HOSTILE, says=HOSTILE, address=HOSTILE),),
        (Opening(at, HOSTILE),),
        at,
    )
    page = render_to_string("parts/train.html", {"train": whole})
    assert "<script" not in page
    root = ElementTree.fromstring(page)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(element.get("href", "#t").removeprefix("#") in ids for element in root.iter("use"))


@given(moments, st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=400)))
def test_a_band_lies_where_its_time_does(begins: datetime, length: timedelta) -> None:
    """In every quarter that it touches and in no other, from edge to edge where it goes on, and wide enough to be pointed at."""
    year = train(*ORDINARY * 4, bands=(Band(begins, begins + length, "Frozen", "/freezes/1/"),))
    for place, quarter in enumerate(year.quarters):
        first, last = STARTS[3 * place], STARTS[3 * place + 3]
        touches = begins < last and first < begins + length
        assert len(quarter.times) == touches
        for drawn in quarter.times:
            left, width = number(drawn.x), number(drawn.width)
            assert left >= 0
            assert left + width <= 100.1
            assert width >= 3
            if begins <= first and last <= begins + length:
                assert (left, width) == (0, 100)


def test_a_band_says_its_reason_and_is_escaped() -> None:
    year = train(*ORDINARY, bands=(Band(STARTS[1], STARTS[2], HOSTILE, "/freezes/1/"),))
    page = render_to_string("parts/train.html", {"train": year})
    assert "<script>" not in page
    assert page.count('class="train-band"') == 1
    assert 'href="/freezes/1/"' in page
