"""The geometry of pictures, and what they say to those who do not see them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from ui.charts import (
    MANY,
    PLOT_HEIGHT,
    Bar,
    Column,
    ColumnChart,
    Lane,
    Mark,
    Segment,
    Series,
    Shape,
    Span,
    Strip,
    Tone,
    axis_top,
    month_ticks,
    shares,
)

HOSTILE = '"><script>alert(1)</script>{{ x }}&amp;'
SERIES = (Series("Nothing missing", Tone.CALM), Series("Missing", Tone.ATTENTION), Series("No data", Tone.UNKNOWN))
counts = st.integers(min_value=0, max_value=10**12)
START = datetime(2026, 8, 27, tzinfo=UTC)
END = datetime(2027, 8, 27, tzinfo=UTC)
moments = st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2028, 1, 1), timezones=st.just(UTC))


def number(place: str) -> float:
    return float(place.removesuffix("%"))


def columns(*values: tuple[int, ...] | None, is_share: bool = True) -> ColumnChart:
    return ColumnChart(
        name="c",
        title="Compliance",
        description="Thirty days",
        head="Day",
        series=SERIES,
        columns=tuple(Column(f"day {place}", v) for place, v in enumerate(values)),
        is_share=is_share,
    )


def drawn_as(template: str, chart: object) -> str:
    return render_to_string(template, {"chart": chart})


def well_formed(markup: str) -> ElementTree.Element:
    """The drawing as XML, which is stricter than a browser."""
    return ElementTree.fromstring(markup.replace(" data-zone>", ' data-zone="">'))


@given(st.lists(counts, max_size=12), st.floats(min_value=0.1, max_value=20))
def test_shares_fill_the_whole_and_hide_nothing(values: list[int], least: float) -> None:
    found = shares(values, 100.0, least)
    assert len(found) == len(values)
    assert sum(found) == pytest.approx(100.0 if any(values) else 0.0)
    room = min(least, 100.0 / max(1, sum(1 for value in values if value)))
    assert all(length >= room - 1e-9 if value else length == 0 for value, length in zip(values, found, strict=True))


def test_shares_keep_their_proportions() -> None:
    assert shares([1, 3], 100.0, 1.0) == (25.0, 75.0)
    assert shares([1, 999_999], 100.0, 1.0) == pytest.approx((1.0, 99.0))


@given(counts)
def test_the_axis_reaches_over_every_column_by_a_round_figure(largest: int) -> None:
    top = axis_top(largest)
    assert top >= largest
    assert top % 2 == 0 or top in {5, 1}
    assert largest < 2 or top < 5 * largest
    assert str(top).rstrip("0") in {"1", "2", "4", "5"}


@given(st.lists(st.one_of(st.none(), st.tuples(counts, counts, counts)), max_size=40), st.booleans())
def test_columns_overlap_nowhere_and_stay_inside(values: list[tuple[int, int, int] | None], is_share: bool) -> None:
    chart = columns(*values, is_share=is_share)
    assert len(chart.drawn) == len(values)
    for left, right in pairwise(chart.drawn):
        assert number(left.x) + number(left.width) <= number(right.x) + 0.01
    for drawn in chart.drawn:
        assert -0.01 <= number(drawn.x) <= 100 - number(drawn.width) + 0.01
        tops = [float(part.y) for part in drawn.parts]
        assert tops == sorted(tops, reverse=True)
        assert all(-0.01 <= top <= PLOT_HEIGHT for top in tops)
        for lower, upper in pairwise(drawn.parts):
            assert float(upper.y) + float(upper.height) <= float(lower.y) + 0.02
        assert len(drawn.parts) == sum(1 for value in drawn.column.values or () if value)
        if is_share and drawn.parts:
            assert sum(float(part.height) for part in drawn.parts) == pytest.approx(PLOT_HEIGHT, abs=0.1)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 12, MANY, 30, 365])
def test_any_number_of_columns_is_drawn_and_the_keyboard_stops_at_few(count: int) -> None:
    chart = columns(*[(3, 2, 1)] * count)
    page = drawn_as("parts/chart_columns.html", chart)
    assert page.count('class="chart-stop"') == count
    assert page.count('<tr><th scope="row">') == count
    assert page.count('<g class="chart-stop" role="img" tabindex="0"') <= MANY
    labelled = sum(1 for drawn in chart.drawn if drawn.is_labelled)
    assert min(count, 1) <= labelled <= MANY


def test_a_million_and_one_are_both_seen() -> None:
    (drawn,) = columns((1_000_000, 1, 0)).drawn
    assert [part.tone for part in drawn.parts] == [Tone.CALM, Tone.ATTENTION]
    assert all(float(part.height) >= 2 for part in drawn.parts)
    assert drawn.says.text == "day 0: Nothing missing 1,000,000 · Missing 1 · No data 0"


def test_nothing_and_not_known_are_told_apart() -> None:
    nothing, unknown = columns((0, 0, 0), None).drawn
    assert nothing.parts == unknown.parts == ()
    assert nothing.says.text == "day 0: Nothing missing 0 · Missing 0 · No data 0"
    assert unknown.says.text == "day 1: not recorded"
    assert [figures for _name, figures in columns((0, 0, 0), None).rows] == [("0", "0", "0"), ("–", "–", "–")]


def test_totals_stand_on_counted_columns_only() -> None:
    counted = columns((3_000, 900, 60), is_share=False)
    assert counted.drawn[0].total == "3,960"
    assert [line.label for line in counted.lines] == ["4,000", "2,000", "0"]
    assert columns((3, 1, 0)).drawn[0].total == ""
    assert [line.label for line in columns().lines] == ["100%", "50%", "0%"]


def test_words_of_marks_do_not_run_into_each_other() -> None:
    marked = ColumnChart(
        "c", "t", "d", "Day", SERIES[:1], tuple(Column(str(n), (n,), mark=f"mark {n}") for n in range(30))
    )
    named = [drawn for drawn in marked.drawn if drawn.is_mark_named]
    spans = [
        (number(d.left) - 30, number(d.left)) if d.is_mark_late else (number(d.left), number(d.left) + 30)
        for d in named
    ]
    assert len(named) >= 2
    assert all(end <= start + 0.01 for (_s, end), (start, _e) in pairwise(spans))
    assert [name for name, _figures in marked.rows][4] == "4 · mark 4"


@pytest.mark.parametrize("values", [(1, 2), (1, 2, 3, 4), (1, -1, 0)])
def test_columns_that_fit_no_series_are_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="series"):
        columns(values)


# --- bars --------------------------------------------------------------------------------------------------------


@given(st.lists(counts, min_size=1, max_size=8), counts)
def test_segments_lie_side_by_side_and_never_past_the_end(values: list[int], whole: int) -> None:
    bar = Bar("b", "t", tuple(Segment(str(n), value, Tone.DONE) for n, value in enumerate(values)), whole=whole)
    assert len(bar.drawn) == sum(1 for value in values if value)
    for left, right in pairwise(bar.drawn):
        assert number(left.x) + number(left.width) == pytest.approx(number(right.x), abs=0.01)
    if bar.drawn:
        end = number(bar.drawn[-1].x) + number(bar.drawn[-1].width)
        assert end <= 100.01
        assert end == pytest.approx(100, abs=0.01) or whole > sum(values)


def test_a_negative_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Bar("b", "t", (Segment("x", -1, Tone.DONE),))


def test_a_bar_says_its_counts_and_leads_to_them() -> None:
    bar = Bar(
        "b",
        "Install",
        (Segment("done", 141, Tone.DONE, "/list/?a=1&b=2"), Segment("failed", 3, Tone.FAILED)),
        whole=1_000_000,
    )
    page = drawn_as("parts/chart_bar.html", bar)
    assert "done: 141, failed: 3" in page
    assert 'href="/list/?a=1&amp;b=2"' in page
    assert 'class="visually-hidden"' in drawn_as(
        "parts/chart_bar.html", Bar("b", "t", bar.segments, is_legend_shown=False)
    )


# --- strips ------------------------------------------------------------------------------------------------------


def strip(*marks: Mark, spans: tuple[Span, ...] = (), now: datetime | None = None) -> Strip:
    lanes = (Lane("Track", spans), Lane("Installations", (), marks))
    return Strip("s", "A year", "Of one machine", START, END, lanes, month_ticks(START, END), now)


@given(st.lists(moments, max_size=60))
def test_marks_of_a_lane_overlap_nowhere_and_none_is_lost(when: list[datetime]) -> None:
    drawn = strip(*(Mark(at, "x", Shape.CIRCLE, Tone.DONE) for at in when)).drawn[1].marks
    inside = [at for at in when if START <= at <= END]
    assert sum(len(mark.marks) for mark in drawn) == len(inside)
    assert all(number(right.x) - number(left.x) >= 3.19 for left, right in pairwise(drawn))
    assert all(0 <= number(mark.x) <= 100 for mark in drawn)


@given(st.lists(st.tuples(moments, moments), max_size=12))
def test_spans_overlap_nowhere_and_stay_inside(pairs: list[tuple[datetime, datetime]]) -> None:
    spans = tuple(Span(min(pair), max(pair), "on track", Tone.DONE) for pair in pairs)
    drawn = strip(spans=spans).drawn[0].spans
    for left, right in pairwise(drawn):
        assert number(left.x) + number(left.width) <= number(right.x) + 0.01
    assert all(number(span.x) >= 0 and number(span.x) + number(span.width) <= 100.01 for span in drawn)


def test_a_strip_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="no length"):
        Strip("s", "t", "d", START, START, ())


def test_many_marks_at_one_place_are_told_as_some_and_how_many_more() -> None:
    at = START + timedelta(days=40)
    chart = strip(*(Mark(at, f"KB{n}", Shape.CROSS, Tone.FAILED) for n in range(1_000)))
    (mark,) = chart.drawn[1].marks
    assert mark.says.text.endswith("2026-10-06 KB4, and 995 more")
    assert len(chart.rows) == 1_000


def test_today_is_drawn_inside_only() -> None:
    assert strip(now=START + (END - START) / 4).now_x == "25%"
    assert strip(now=END + timedelta(days=1)).now_x == ""
    assert strip().now_x == ""
    assert strip(now=END).is_now_late


def test_ticks_are_the_months_of_the_strip() -> None:
    ticks = strip().drawn_ticks
    assert [tick.tick.label for tick in ticks][:5] == ["Sep", "Oct", "Nov", "Dec", "2027"]
    assert len(ticks) == 12
    with translation.override("ja"):
        assert strip().drawn_ticks[0].tick.label == "9月"


# --- what is written ---------------------------------------------------------------------------------------------


def hostile_pictures() -> list[tuple[str, object]]:
    mark = Mark(START + timedelta(days=3), HOSTILE, Shape.DIAMOND, Tone.DONE, f"/x/?q={HOSTILE}")
    column = Column(HOSTILE, (1, 2, 3), HOSTILE, HOSTILE, f"/x/?q={HOSTILE}", HOSTILE)
    series = tuple(Series(HOSTILE, tone) for tone in (Tone.CALM, Tone.UNKNOWN, Tone.FAILED))
    span = Span(START, END, HOSTILE, Tone.UNKNOWN)
    return [
        ("columns", ColumnChart("c", HOSTILE, HOSTILE, HOSTILE, series, (column, column))),
        ("bar", Bar("b", HOSTILE, (Segment(HOSTILE, 3, Tone.UNKNOWN, f"/x/?q={HOSTILE}"),))),
        ("strip", Strip("s", HOSTILE, HOSTILE, START, END, (Lane(HOSTILE, (span,), (mark, mark)),), now=START)),
    ]


@pytest.mark.parametrize(
    ("kind", "chart"), hostile_pictures(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_hostile_labels_are_text(kind: str, chart: object) -> None:
    page = drawn_as(f"parts/chart_{kind}.html", chart)
    assert "<script" not in page
    assert "{{ x }}" in page
    root = well_formed(page)
    assert all(HOSTILE in (element.text or "") for element in root.iter("title"))


@pytest.mark.parametrize(
    ("kind", "chart"), hostile_pictures(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_picture_has_a_name_words_and_no_style_of_its_own(kind: str, chart: object) -> None:
    page = drawn_as(f"parts/chart_{kind}.html", chart)
    root = well_formed(page)
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    svg = next(element for element in root.iter("svg") if element.get("aria-labelledby"))
    assert {svg.get("aria-labelledby"), svg.get("aria-describedby")} <= ids
    assert all(element.get("href", "#c").removeprefix("#") in ids for element in root.iter("use"))
    assert len(re.findall(r'\sid="', page)) == len(ids)
    assert not re.search(r"\sstyle=|\son[a-z]+=", page)
    assert ("<table" in page) or ("chart-legend" in page)
