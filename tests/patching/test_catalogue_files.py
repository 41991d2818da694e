"""One release, one type, one update; what is in the recorded files, and what is doubted in them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.identity import identified, is_newer, is_same_update, newest_of_each, version_order
from patching.one_release import Meeting, find_meant, meet, stands_against
from patching.outcome import ExpectedPatch, build_order, verify
from patching.release_files import (
    OTHER_FIELDS,
    RELEASE_FIELDS,
    ReleaseDataError,
    build_of_title,
    is_type_primary,
    load_other_updates,
    load_releases,
    month_of_title,
    plain,
    shown,
    title_of_release,
)
from patching.releases import second_tuesday
from patching.terms import (
    Audience,
    Channel,
    Classification,
    Patch,
    ProductLine,
    RebootBehavior,
    Release,
    ReleaseType,
    Verification,
)
from tests.patching.recorded import DATA, day, month, releases
from tests.patching.tables import Row, flag, rows, table

DOCS = Path(__file__).resolve().parents[2] / "docs"


def release(kind: str, kb_number: str = "", on: str = "2026-04-14", build: str = "") -> Release:
    released_on = date.fromisoformat(on)
    return Release(
        ProductLine.WS2022, released_on.replace(day=1), ReleaseType(kind), released_on, kb_number=kb_number, build=build
    )


def patch(kb_number: str, version: str = "", update_id: str = "", published_on: date | None = None) -> Patch:
    return Patch(
        kb_number,
        f"{kb_number} {version}",
        Classification.UPDATES,
        RebootBehavior.UNKNOWN,
        update_id=update_id,
        version=version,
        published_on=published_on,
    )


# --- one release -------------------------------------------------------------------------------------------------


@table("one-type")
def test_one_type(row: Row) -> None:
    recorded, said = ReleaseType(row["recorded"]), ReleaseType(row["row says"])
    how = meet(recorded, said, corrects=flag(row["row corrects"]), is_decided=flag(row["decided by a person"]))
    assert how == row["what happens"]
    follows = how in {Meeting.FOLLOWS, Meeting.PROMOTES, Meeting.CORRECTS}
    assert (said if follows else recorded) == row["type after"]


@table("meant-release")
def test_meant_release(row: Row) -> None:
    known = release(row["recorded"], row["recorded KB"], row["recorded day"])
    said = release(row["row says"], row["row KB"], row["row day"])
    elsewhere = replace(known, product_line=ProductLine.WS2025)
    assert (find_meant([elsewhere, known], said) is known) is flag(row["means it"])
    if not flag(row["means it"]):
        assert (stands_against([elsewhere, known], said) is known) is flag(row["contradicts it"])


def test_out_of_band_releases_of_one_build_are_one_whatever_the_day() -> None:
    known = release("oob_lcu", "5082142", "2026-04-19", "20348.5024")
    assert find_meant([known], release("oob_lcu", "", "2026-04-20", "20348.5024")) is known
    assert find_meant([known], release("oob_lcu", "", "2026-04-19", "20348.5029")) is None


@table("type-evidence")
def test_type_evidence(row: Row) -> None:
    assert is_type_primary(row["evidence"]) is flag(row["type confirmed"])


@table("titles")
def test_titles(row: Row) -> None:
    of_month = month(row["month"])
    assert of_month is not None
    found = Release(
        ProductLine(row["line"]), of_month, ReleaseType(row["type"]), of_month, kb_number=row["KB"], build=row["build"]
    )
    title = title_of_release(found)
    assert title == row["title"]
    assert month_of_title(title) == of_month
    assert build_of_title(title, found.product_line) in {found.build, ""}


def test_a_title_that_tells_nothing() -> None:
    for title in ("Security Update", "2026-13 Security Update", "1999-01 Update"):
        assert month_of_title(title) is None
    assert build_of_title("2026-09 Security Update (KB5122871) (26100.33438)", ProductLine.WS2022) == ""


# --- one update --------------------------------------------------------------------------------------------------


@table("newer-sighting")
def test_newer_sighting(row: Row) -> None:
    known = patch("890830", row["known version"], row["known id"], day(row["known date"]))
    seen = patch("890830", row["seen version"], row["seen id"], day(row["seen date"]))
    assert is_newer(seen, known) is flag(row["replaces it"])


@table("same-update")
def test_same_update(row: Row) -> None:
    one = patch(row["KB"], row["version"], row["id"])
    other = patch(row["other KB"], row["other version"], row["other id"])
    assert is_same_update(one, other) is is_same_update(other, one) is flag(row["the same"])


@given(st.lists(st.integers(0, 9_999), min_size=1, max_size=4), st.lists(st.integers(0, 9_999), min_size=1, max_size=4))
def test_versions_are_compared_number_by_number(one: list[int], other: list[int]) -> None:
    texts = ["v" + ".".join(map(str, numbers)) for numbers in (one, other)]
    assert (version_order(texts[0]) < version_order(texts[1])) is (one < other)


@given(
    st.lists(
        st.builds(
            patch,
            st.just("890830"),
            st.sampled_from(["v5.99", "v5.128", "v5.129"]),
            st.sampled_from(["a", "b"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_in_whatever_order_the_newest_version_stays(seen: list[Patch]) -> None:
    (kept,) = newest_of_each(seen).values()
    assert version_order(kept.version) == max(version_order(found.version) for found in seen)


def test_updates_that_share_a_kb_are_known_by_their_ids() -> None:
    one, two, alone = patch("5082063", update_id="a"), patch("5082063", update_id="b"), patch("890830", update_id="c")
    known = identified((one, two, alone))
    assert [found.key for found in known] == ["id:a", "id:b", ":890830"]
    assert [found.kb_number for found in known] == ["5082063", "5082063", "890830"]
    single = (one, alone)
    assert identified(single) is single
    nameless = patch("5082063")
    assert [found.key for found in identified((one, nameless))] == ["id:a", ":5082063"]
    assert [found.key for found in identified((one, one))] == [":5082063", ":5082063"]


def test_another_update_of_the_same_kb_contradicts_nothing() -> None:
    installed = replace(patch("5082063", update_id="a"), classification=Classification.SECURITY)
    for offered, verdict in (
        (replace(installed, update_id="b"), Verification.CONFIRMED),
        (installed, Verification.CONTRADICTED),
        (replace(installed, is_known_by_id=True), Verification.CONTRADICTED),
    ):
        found = verify(
            [ExpectedPatch(installed)], available_after=[offered], build_after="", is_reboot_outstanding=False
        )
        assert found.verification is verdict


# --- reading -----------------------------------------------------------------------------------------------------


def test_text_is_read_as_it_was_meant_and_shown_on_one_line() -> None:
    assert plain(" ｋｂ５０３\u200b４１２９\ufeff") == "kb5034129"
    assert shown(None) == ""
    assert shown("a\nb\x00c") == "a\ufffdb\ufffdc"
    assert len(shown("x" * 500)) == 61


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"product": None}, "product", "missing"),
        ({"product": 7}, "product", "no_product"),
        ({"month": None}, "month", "missing"),
        ({"month": "1999-01"}, "month", "no_month"),
        ({"month": ["2026-05"]}, "month", "no_month"),
        ({"release_date": "2101-05-12"}, "release_date", "no_day"),
        ({"release_date": 20260512}, "release_date", "no_day"),
        ({"release_date": "2026-06-09"}, "release_date", "outside_month"),
        ({"type": None}, "type", "missing"),
        ({"type": ["lcu"]}, "type", "no_text"),
        ({"status": None, "kb": None, "build": None}, "status", "no_status"),
        ({"build": "5087424"}, "build", "no_build"),
        ({"build": "20348.5074"}, "build", "other_line"),
        ({"channel": "post"}, "channel", "no_channel"),
        ({"audience": "me"}, "audience", "no_audience"),
        ({"note": "x" * 2_001}, "note", "too_long"),
        ({"source": "\ud800"}, "source", "no_text"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], field: str, problem: str) -> None:
    row: dict[str, object] = {
        "product": "Windows Server 2025",
        "month": "2026-05",
        "type": "hotpatch",
        "kb": "KB5087423",
        "status": "released",
    }
    with pytest.raises(ReleaseDataError) as caught:
        load_releases([row, row | change])
    assert (caught.value.row, caught.value.field, caught.value.problem) == (2, field, problem)


@pytest.mark.parametrize(
    ("product", "line"),
    [
        ("windows server 2022", ProductLine.WS2022),
        ("Windows Server 2022 Datacenter: Azure Edition", ProductLine.WS2022),
        ("WS2022", ProductLine.WS2022),
        ("Windows Server 2025 Datacenter: Azure Edition", ProductLine.WS2025),
    ],
)
def test_a_product_is_known_by_each_of_its_names(product: str, line: ProductLine) -> None:
    (found,) = load_releases([{"product": product, "month": "2026-05", "type": "LCU", "status": "released"}])
    assert found.product_line is line


def test_an_out_of_band_release_may_come_after_its_month() -> None:
    (found,) = load_releases(
        [
            {
                "product": "ws2022",
                "month": "2026-02",
                "release_date": "2026-03-02",
                "type": "OOB_LCU",
                "build": "10.0.20348.4776",
                "kb": "5082314",
                "channel": "Windows_Update",
                "audience": "Few",
            }
        ]
    )
    assert (found.build, found.is_scheduled) == ("20348.4776", False)
    assert (found.channel, found.audience) == (Channel.WINDOWS_UPDATE, Audience.FEW)


def test_the_example_of_the_documentation_can_be_read() -> None:
    example = json.loads((DOCS / "catalogue-example.json").read_text())
    found = [row for row in example if "type" in row]
    assert {release.type for release in load_releases(found)} == set(ReleaseType)
    others = [row for row in example if "type" not in row]
    assert len(load_other_updates(others)) == 2
    assert {name for row in found for name in row} <= RELEASE_FIELDS
    assert {name for row in others for name in row} <= OTHER_FIELDS
    explained = (DOCS / "catalogue-files.md").read_text()
    assert all(f"| `{name}` |" in explained for name in RELEASE_FIELDS | OTHER_FIELDS)


# --- what is recorded --------------------------------------------------------------------------------------------

MONTHLY = {ReleaseType.BASELINE, ReleaseType.HOTPATCH, ReleaseType.LCU}


def test_no_kb_is_recorded_twice_and_no_month_has_two_of_a_kind() -> None:
    kbs = Counter((r.product_line, r.kb_number) for r in releases() if r.kb_number)
    assert [kb for kb, count in kbs.items() if count > 1] == []
    months = Counter((r.product_line, r.month, r.type) for r in releases() if r.type in MONTHLY)
    assert [of for of, count in months.items() if count > 1] == []
    both = Counter((r.product_line, r.month) for r in releases() if r.type in {ReleaseType.BASELINE, ReleaseType.LCU})
    assert [of for of, count in both.items() if count > 1] == [], "a baseline is everybody's cumulative update"


def test_monthly_releases_came_on_the_second_tuesday_and_planned_baselines_begin_a_quarter() -> None:
    for found in releases():
        if found.type in MONTHLY:
            assert found.released_on == second_tuesday(found.month)
        if found.type is ReleaseType.BASELINE:
            assert found.is_planned is (found.month.month in {1, 4, 7, 10})
    late = [r for r in releases() if r.released_on.replace(day=1) != r.month]
    assert [r.kb_number for r in late] == ["5082314"]


@pytest.mark.parametrize("line", ProductLine)
def test_later_releases_have_higher_builds_and_two_never_share_one_but_once(line: ProductLine) -> None:
    built = sorted(
        (r for r in releases() if r.product_line is line and r.build),
        key=lambda r: (r.released_on, build_order(r.build)),
    )
    twins = [(a.kb_number, b.kb_number) for a, b in pairwise(built) if build_order(a.build) >= build_order(b.build)]
    assert twins == ([("5070881", "5070893")] if line is ProductLine.WS2025 else [])


def test_channel_and_audience_stand_where_a_source_tells_them() -> None:
    told = {
        r.kb_number: (r.channel.value, r.audience.value)
        for r in releases()
        if (r.channel, r.audience) != (Channel.UNKNOWN, Audience.UNKNOWN)
    }
    assert told == {
        "5070881": ("windows_update", "few"),
        "5070893": ("windows_update", "everybody"),
        "5091157": ("catalog_and_wsus", "unknown"),
        "5129235": ("catalog_and_wsus", "unknown"),
        "5129237": ("catalog_and_wsus", "unknown"),
    }


def test_every_doubt_is_written_down() -> None:
    recorded = {row["kb"]: row for row in json.loads((DATA / "hotpatch_releases.json").read_text()) if row["kb"]}
    doubts = (DOCS / "catalogue-files.md").read_text()
    for kb_number in ("KB5122882", "KB5094128", "KB5094125", "KB5122871", "KB5044284", "KB5082314", "KB5070881"):
        assert recorded[kb_number]["note"]
        assert kb_number in doubts
    unconfirmed = {r.kb_number for r in releases() if not r.is_type_confirmed and r.month >= date(2024, 1, 1)}
    assert {"5122882", "5094128", "5094125", "5122871", "5044284"} <= unconfirmed


def test_the_tables_of_the_catalogue_are_there() -> None:
    assert all(rows(name) for name in ("one-type", "meant-release", "type-evidence", "titles"))
