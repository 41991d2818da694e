"""By which choice a recurrence is picked, against the table in docs/rules.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patching.recurrence import parse_recurrence
from patching.recurrence_picker import FREQUENCIES, Choice, after_patch_tuesday, choice_of, is_for_azure
from tests.patching.tables import flag, rows


@pytest.mark.parametrize("row", rows("recurrence-picker"), ids=lambda row: row["text"])
def test_choices(row: dict[str, str]) -> None:
    recurrence = parse_recurrence(row["text"])
    choice = choice_of(recurrence)
    assert choice.value == row["choice"]
    assert FREQUENCIES[choice] is recurrence.frequency
    assert is_for_azure(recurrence) is flag(row["Azure takes it"])


@given(st.integers(0, 27), st.integers(1, 12))
def test_days_after_patch_tuesday_are_picked_as_such(days: int, every: int) -> None:
    recurrence = after_patch_tuesday(days, every=every)
    assert choice_of(recurrence) is Choice.PATCH_TUESDAY
    assert parse_recurrence(str(recurrence)) == recurrence
