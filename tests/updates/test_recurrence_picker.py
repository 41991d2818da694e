"""How often a window opens is picked, not spelt: form and recurrence say the same, in both directions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from patching.recurrence import MOST_EVERY, MOST_OFFSET, ORDINALS, Frequency, Recurrence, parse_recurrence
from tests.patching.tables import rows
from tests.updates.rollouts import fleet
from updates.forms.maintenance import MaintenanceForm
from updates.forms.recurrence import LONGEST_TEXT, RecurrenceFields, fields_of_recurrence, picked_words
from updates.forms.zones import offset_words, zone_choices
from updates.models import MaintenanceConfiguration
from vms.models import ResourceGroup

FIELDS = {
    "name": "x",
    "starts_on": "2026-11-24",
    "starts_at": "22:00",
    "time_zone": "Tokyo Standard Time",
    "duration_minutes": "120",
    "classifications": ["Security"],
    "reboot_setting": "IfRequired",
}


def picked(fields: dict[str, Any]) -> RecurrenceFields:
    form = RecurrenceFields(fields)
    form.full_clean()
    form.pick_recurrence()
    return form


def every(frequency: Frequency) -> st.SearchStrategy[int]:
    return st.integers(1, MOST_EVERY[frequency.value])


recurrences = st.one_of(
    st.builds(Recurrence, st.just(Frequency.DAY), every(Frequency.DAY)),
    st.builds(
        lambda n, days: Recurrence(Frequency.WEEK, n, weekdays=tuple(sorted(days))),
        every(Frequency.WEEK),
        st.sets(st.integers(0, 6)),
    ),
    st.builds(
        lambda n, days: Recurrence(Frequency.MONTH, n, days=tuple(sorted(days))),
        every(Frequency.MONTH),
        st.sets(st.integers(1, 31), min_size=1),
    ),
    st.builds(
        lambda n, which, day, off: Recurrence(Frequency.MONTH, n, ordinal=which, weekday=day, offset=off),
        every(Frequency.MONTH),
        st.sampled_from(ORDINALS),
        st.integers(0, 6),
        st.integers(-MOST_OFFSET, MOST_OFFSET),
    ),
)


@given(recurrences)
def test_what_the_picker_shows_says_the_same_recurrence_again(recurrence: Recurrence) -> None:
    shown = dict(fields_of_recurrence(str(recurrence)))
    form = picked(shown)
    if len(str(recurrence)) > LONGEST_TEXT:
        assert "too many days" in str(form.errors)
        return
    assert form.errors == {}
    assert form.recurrence == recurrence
    assert form.cleaned_data["recur_every"] == str(recurrence)
    # so does Azure's text, which is shown beside it
    assert picked({"repeats": "expression", "recur_every": shown["recur_every"]}).recurrence == recurrence


@pytest.mark.parametrize("row", rows("recurrence-picker"), ids=lambda row: row["text"])
def test_choices_in_words(row: dict[str, str]) -> None:
    assert picked_words(parse_recurrence(row["text"])) == row["words"]


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"repeats": "daily", "every": "367"}, "every", "less than or equal to 366"),
        ({"repeats": "weekly", "every": "53"}, "weekdays", "53"),
        ({"repeats": "weekly", "weekdays": ["7"]}, "weekdays", "not one of the available choices"),
        ({"repeats": "patch_tuesday", "days_after": "28"}, "days_after", "less than or equal to 27"),
        ({"repeats": "patch_tuesday", "days_after": "four"}, "days_after", "whole number"),
        ({"repeats": "nth_weekday", "ordinal": "Fifth", "weekday": "1"}, "ordinal", "not one of the available"),
        ({"repeats": "month_days", "month_days": "1, 32"}, "month_days", "“32”"),
        ({"repeats": "month_days", "month_days": ""}, "month_days", "“”"),
        ({"repeats": "month_days", "month_days": "<script>"}, "month_days", "“<script>”"),
        ({"repeats": "expression", "recur_every": "Fortnightly"}, "recur_every", "Begin with Day"),
        ({"repeats": "expression"}, "recur_every", "Begin with Day"),
        ({"repeats": "sometimes"}, "repeats", "not one of the available choices"),
        ({}, "recur_every", "Begin with Day"),
    ],
)
def test_what_is_no_recurrence_is_an_error_at_its_field(fields: dict[str, Any], field: str, said: str) -> None:
    form = picked(fields)
    assert form.recurrence is None
    assert set(form.errors) == {field}
    assert said in form.errors[field][0]


def test_what_belongs_to_another_choice_is_no_mistake() -> None:
    form = picked({"repeats": "daily", "days_after": "99", "month_days": "x", "recur_every": "y" * 500})
    assert form.errors == {}
    assert str(form.recurrence) == "Day"
    assert str(picked({"repeats": "month_days", "month_days": "１５、 1;31"}).recurrence) == "Month day1,day15,day31"


def test_the_readers_own_zone_comes_first_with_its_offset() -> None:
    with timezone.override("Asia/Tokyo"):
        choices = zone_choices()
    assert choices[1] == ("Tokyo Standard Time", "Tokyo Standard Time (UTC+09:00, Asia/Tokyo)")
    names = [name for name, _label in choices]
    assert len(names) == len(set(names))
    assert names.index("Hawaiian Standard Time") < names.index("W. Europe Standard Time")
    with timezone.override("America/St_Johns"):
        assert zone_choices()[1][1].startswith("Newfoundland Standard Time (UTC-0")
    minutes = {0: "UTC+00:00", 330: "UTC+05:30", -210: "UTC-03:30"}
    assert {count: offset_words(timedelta(minutes=count)) for count in minutes} == minutes


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(db: None, client: Client, chief: User) -> Client:
    client.force_login(chief)
    return client


def test_patch_tuesday_and_four_days_is_one_choice(page: Client, resource_group: ResourceGroup) -> None:
    (vm,) = fleet(resource_group, 1)
    data = FIELDS | {"repeats": "patch_tuesday", "days_after": "4", "every": "1", "machines": vm.name, "go": "save"}
    assert page.post(reverse("updates:maintenance-create"), data).status_code == 302
    row = MaintenanceConfiguration.objects.get()
    assert row.recur_every == "Month Second Tuesday Offset4"
    form = page.get(reverse("updates:maintenance-edit", args=[row.pk])).context["form"]
    assert (form["repeats"].value(), form["days_after"].value()) == ("patch_tuesday", 4)
    html = page.get(reverse("updates:maintenance-edit", args=[row.pk])).content.decode()
    assert "Saturday after Patch Tuesday, 22:00 (Asia/Tokyo)" in html
    assert "Month Second Tuesday Offset4" in html


def test_the_sentence_lives_although_the_rest_is_missing(page: Client) -> None:
    address = reverse("updates:maintenance-create")
    asked = {"HTTP_HX_REQUEST": "true", "HTTP_HX_TARGET": "recurrence"}
    part = page.post(address, {"repeats": "weekly", "weekdays": ["5"], "every": "2"}, **asked)
    assert part.status_code == 200
    text = part.content.decode()
    assert "Every 2 weeks on Saturday" in text
    assert "2Weeks Saturday" in text
    assert "<html" not in text
    with_time = page.post(
        address,
        {"repeats": "patch_tuesday", "days_after": "11", "starts_at": "22:00", "time_zone": "Tokyo Standard Time"},
        **asked,
    ).content.decode()
    assert "Saturday, 11 days after Patch Tuesday, 22:00 (Asia/Tokyo)" in with_time
    assert "22:00</time>" in with_time
    assert "six days at most" in with_time
    nothing = page.post(address, {"repeats": "month_days", "month_days": "<b>"}, **asked).content.decode()
    assert "Choose how often it repeats." in nothing
    assert not MaintenanceConfiguration.objects.exists()


def test_a_new_one_begins_with_the_readers_clock(db: None) -> None:
    with timezone.override("Asia/Tokyo"):
        form = MaintenanceForm()
        assert form.initial["time_zone"] == "Tokyo Standard Time"
        sentence = form.sentence
    assert sentence is not None
    assert sentence.words == "Saturday after Patch Tuesday"
    assert (sentence.next, sentence.starts_at) == ([], None)
