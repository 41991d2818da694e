"""Freezes hold at every start and at every end: the tables of docs/rules.md, and properties."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.freezes import Frozen, is_held, judge_start, longest_act, time_to_freeze
from patching.rollback import RollbackOrder
from patching.terms import Classification, InstallationPlan, OperationKind
from tests.patching.tables import flag, rows, words

MINUTE = timedelta(minutes=1)
START = datetime(2026, 12, 28, tzinfo=UTC)


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def freezes_of(row: dict[str, str]) -> list[Frozen]:
    excepted_until = moment(row["excepted until"]) if row["excepted until"] else None
    found = []
    for text in words(row["freezes"]):
        match = re.fullmatch(r"(.+?) (\d{4}\S+ \S+) to (\S+ \S+)", text)
        assert match, text
        found.append(Frozen(moment(match[2]), moment(match[3]), match[1], excepted_until))
    return found


@pytest.mark.parametrize("row", rows("freezes"), ids=lambda row: f"{row['now']} {row['minutes']}")
def test_freezes(row: dict[str, str]) -> None:
    freezes, now = freezes_of(row), moment(row["now"])
    hold = judge_start(freezes, now=now, longest=int(row["minutes"]) * MINUTE)
    left = time_to_freeze(freezes, now)
    assert (None if left is None else str(left // MINUTE)) == (row["minutes left"] or None)
    if row["answer"] == "free":
        assert hold is None
        return
    assert hold is not None
    assert (hold.answer, hold.names, hold.free_at) == (row["answer"], words(row["names"]), moment(row["free at"]))
    assert hold.left == left


@pytest.mark.parametrize("row", rows("freeze-kinds"), ids=lambda row: row["kind"])
def test_kinds(row: dict[str, str]) -> None:
    kind = OperationKind(row["kind"])
    assert is_held(kind) is flag(row["held"])
    payload = {
        OperationKind.INSTALLATION: InstallationPlan(classifications=frozenset({Classification.SECURITY})),
        OperationKind.ROLLBACK: RollbackOrder(("5034129",), "5034120", "20348.1", must_install_target=False),
    }.get(kind)
    if row["lasts at most"]:
        assert longest_act(payload) == int(row["lasts at most"]) * MINUTE


def test_what_no_table_names_is_held_and_lasts_an_hour() -> None:
    named = {row["kind"] for row in rows("freeze-kinds")}
    assert all(is_held(kind) for kind in OperationKind if kind.value not in named)
    assert longest_act(None) == 60 * MINUTE


minutes = st.integers(0, 20_000).map(lambda count: START + count * MINUTE)
a_freeze = st.builds(
    lambda begins, length, name, excepted: Frozen(begins, begins + length * MINUTE, name, excepted),
    minutes,
    st.integers(1, 5_000),
    st.sampled_from("ABC"),
    st.none() | minutes,
)


@given(st.lists(a_freeze, max_size=6), minutes, st.integers(1, 300))
def test_what_may_start_is_in_no_freeze_and_what_is_held_would_be_in_one(
    freezes: list[Frozen], now: datetime, length: int
) -> None:
    longest = length * MINUTE
    inside = [
        any(max(f.begins_at, f.excepted_until or f.begins_at) <= now + n * MINUTE < f.ends_at for f in freezes)
        for n in range(length)
    ]
    hold = judge_start(freezes, now=now, longest=longest)
    assert (hold is None) is not any(inside)
    if hold is not None:
        assert hold.free_at > now
        assert judge_start(freezes, now=hold.free_at, longest=longest) is None
        assert judge_start(freezes, now=hold.free_at - MINUTE, longest=longest) is not None
        # with the time that is left it may start, and with a minute more it may not
        assert not hold.left or judge_start(freezes, now=now, longest=hold.left) is None
        assert judge_start(freezes, now=now, longest=hold.left + MINUTE) is not None
