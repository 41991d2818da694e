"""How often a window opens, picked or as Azure writes it, and the sentence that it means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.utils.dates import WEEKDAYS as DAYS_OF_WEEK
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from patching.recurrence import (
    MOST_EVERY,
    MOST_OFFSET,
    Recurrence,
    RecurrenceError,
    RecurrenceProblem,
    check_possible,
    dates_of,
    instant_of,
    parse_recurrence,
)
from patching.recurrence_picker import FREQUENCIES, Choice, after_patch_tuesday, choice_of, is_for_azure
from updates.texts import ORDINALS, OWN_CLOCK_WORDS, RECURRENCE_PROBLEMS, RECURRENCES

EXPRESSION = "expression"
CHOICES = [
    (Choice.PATCH_TUESDAY.value, _("Patch Tuesday + days")),
    (Choice.DAILY.value, _("Daily")),
    (Choice.WEEKLY.value, _("Weekly")),
    (Choice.NTH_WEEKDAY.value, _("Weekday of the month")),
    (Choice.MONTH_DAYS.value, _("Days of the month")),
    (EXPRESSION, _("As Azure writes it")),
]
WEEKDAY_CHOICES = list(DAYS_OF_WEEK.items())
ORDINAL_CHOICES = [
    ("First", _("First")),
    ("Second", _("Second")),
    ("Third", _("Third")),
    ("Fourth", _("Fourth")),
    ("Last", _("Last")),
]
NEXT_DATES = 3
LONGEST_TEXT = 100  # characters; the column that keeps the text is as long
# The fields of each choice, `every` beside them.
FIELDS_OF: dict[str, tuple[str, ...]] = {
    Choice.PATCH_TUESDAY.value: ("days_after",),
    Choice.DAILY.value: (),
    Choice.WEEKLY.value: ("weekdays",),
    Choice.NTH_WEEKDAY.value: ("ordinal", "weekday", "offset"),
    Choice.MONTH_DAYS.value: ("month_days",),
    EXPRESSION: ("recur_every",),
}
RECURRENCE_FIELDS = ("repeats", "every", *(name for names in FIELDS_OF.values() for name in names))


def recurrence_error_words(error: RecurrenceError) -> str:
    """What is wrong with a recurrence, in words."""
    return str(RECURRENCE_PROBLEMS[error.problem]) % {"entry": error.entry}


def words_of(recurrence: Recurrence) -> str:
    """How often a window opens, as people say it."""
    weekdays = ", ".join(str(DAYS_OF_WEEK[day]) for day in recurrence.weekdays)
    days = ", ".join(str(day) for day in recurrence.days)
    facts = {"count": recurrence.every, "weekdays": weekdays, "days": days}
    if recurrence.ordinal:
        key = "ordinal"
        facts["which"] = str(ORDINALS[recurrence.ordinal]) % {"weekday": DAYS_OF_WEEK[recurrence.weekday]}
    else:
        key = "weekdays" if weekdays else "days" if days else ""
    words = str(RECURRENCES[recurrence.frequency, key, recurrence.every == 1]) % facts
    days_off = abs(recurrence.offset)
    if recurrence.offset > 0:
        shifted = ngettext("%(words)s, %(days)s day later", "%(words)s, %(days)s days later", days_off)
    else:
        shifted = ngettext("%(words)s, %(days)s day earlier", "%(words)s, %(days)s days earlier", days_off)
    return shifted % {"words": words, "days": days_off} if days_off else words


def picked_words(recurrence: Recurrence) -> str:
    """The same, by Patch Tuesday where it is picked so."""
    if choice_of(recurrence) is not Choice.PATCH_TUESDAY:
        return words_of(recurrence)
    weekday = DAYS_OF_WEEK[(recurrence.weekday + recurrence.offset) % 7]
    facts = {"weekday": weekday, "days": recurrence.offset, "count": recurrence.every}
    if not recurrence.offset:
        words = str(_("Patch Tuesday"))
    elif recurrence.offset < 7:
        words = str(_("%(weekday)s after Patch Tuesday") % facts)
    else:
        words = str(_("%(weekday)s, %(days)s days after Patch Tuesday") % facts)
    return words if recurrence.every == 1 else str(_("%(words)s, every %(count)s months") % (facts | {"words": words}))


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a recurrence means: in words, on whose clock, when next, and what Azure calls it.

    `is_own_clock`: on each machine's own; there is no zone then.
    """

    recurrence: Recurrence
    starts_at: time | None
    zone: ZoneInfo | None
    starts_on: date | None
    today: date
    is_own_clock: bool = False

    @property
    def words(self) -> str:
        """E.g. Saturday after Patch Tuesday, 22:00 (Asia/Tokyo)."""
        words = picked_words(self.recurrence)
        whose = str(OWN_CLOCK_WORDS) if self.is_own_clock else self.zone.key if self.zone else ""
        if self.starts_at is None or not whose:
            return words
        facts = {"words": words, "time": f"{self.starts_at:%H:%M}", "zone": whose}
        return str(_("%(words)s, %(time)s (%(zone)s)") % facts)

    @property
    def next(self) -> list[datetime]:
        """When it opens next, as an instant where its clock is known."""
        if self.zone is None:
            return []
        return [instant_of(wall, self.zone) for wall in self._walls]

    @property
    def next_walls(self) -> list[datetime]:
        """The same on each machine's own clock: what it shows then, which is no instant."""
        return self._walls if self.is_own_clock else []

    @property
    def _walls(self) -> list[datetime]:
        if self.starts_at is None:
            return []
        days = dates_of(self.recurrence, self.starts_on or self.today, not_before=self.today)
        return [datetime.combine(day, self.starts_at) for day in islice(days, NEXT_DATES)]

    @property
    def expression(self) -> str:
        """As Azure writes it."""
        return str(self.recurrence)

    @property
    def is_for_azure(self) -> bool:
        """Whether Azure takes that."""
        return is_for_azure(self.recurrence)


class RecurrenceFields(forms.Form):
    """How often something repeats: one choice with its own fields, those of the other choices count for nothing.

    Where no choice is made, what is written as Azure writes it counts.
    """

    repeats = forms.ChoiceField(label=_("Repeats"), choices=CHOICES, widget=forms.RadioSelect, required=False)
    every = forms.IntegerField(
        label=_("Every"),
        min_value=1,
        max_value=max(MOST_EVERY.values()),
        initial=1,
        required=False,
        help_text=_("So many days, weeks or months."),
    )
    days_after = forms.IntegerField(
        label=_("Days after Patch Tuesday"),
        min_value=0,
        max_value=MOST_OFFSET,
        initial=4,
        required=False,
        help_text=_("0: on the second Tuesday itself. 4: on the Saturday after it."),
    )
    weekdays = forms.MultipleChoiceField(
        label=_("Weekdays"),
        choices=WEEKDAY_CHOICES,
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text=_("None: the weekday of the first day."),
    )
    ordinal = forms.ChoiceField(label=_("Which"), choices=ORDINAL_CHOICES, initial="Second", required=False)
    weekday = forms.ChoiceField(label=_("Weekday"), choices=WEEKDAY_CHOICES, initial=1, required=False)
    offset = forms.IntegerField(
        label=_("Days after it"),
        min_value=-MOST_OFFSET,
        max_value=MOST_OFFSET,
        initial=0,
        required=False,
        help_text=_("Before it with a minus."),
    )
    month_days = forms.CharField(
        label=_("Days of the month"), max_length=120, required=False, help_text=_("1 to 31, e.g. 1, 15.")
    )
    recur_every = forms.CharField(
        label=_("Azure expression"),
        max_length=LONGEST_TEXT,
        required=False,
        help_text=_("As Azure writes it: Day, 3Days, Week Saturday,Sunday, Month day15, Month Second Tuesday Offset4."),
    )

    recurrence: Recurrence | None = None

    def pick_recurrence(self) -> None:
        """Make `recurrence` of the choice and its fields, and its text of `recur_every`; errors stand at their fields."""
        picked = self.cleaned_data.get("repeats") or EXPRESSION
        if any(name in self.errors for name in ("repeats", "every", *FIELDS_OF[picked])):
            return
        # Errors in the fields of the other choices do not count.
        for name in set(RECURRENCE_FIELDS) & set(self.errors):
            del self.errors[name]
        try:
            self.recurrence = self._picked(picked)
        except RecurrenceError as error:
            self.add_error((FIELDS_OF[picked] or ("every",))[-1], recurrence_error_words(error))
        else:
            self.cleaned_data["recur_every"] = str(self.recurrence)
            if len(str(self.recurrence)) > LONGEST_TEXT:
                words = _("These are too many days: the expression has more than %(most)s characters.")
                self.add_error((FIELDS_OF[picked] or ("every",))[-1], words % {"most": LONGEST_TEXT})

    def _picked(self, picked: str) -> Recurrence:
        fields = self.cleaned_data
        if picked == EXPRESSION:
            return parse_recurrence(fields["recur_every"])
        choice, every = Choice(picked), fields.get("every") or 1
        frequency = FREQUENCIES[choice]
        if every > MOST_EVERY[frequency.value]:
            raise RecurrenceError(RecurrenceProblem.BAD_NUMBER, str(every))
        match choice:
            case Choice.WEEKLY:
                return Recurrence(frequency, every, weekdays=tuple(sorted(map(int, fields["weekdays"]))))
            case Choice.PATCH_TUESDAY:
                return after_patch_tuesday(fields.get("days_after") or 0, every=every)
            case Choice.NTH_WEEKDAY:
                return Recurrence(
                    frequency,
                    every,
                    ordinal=fields["ordinal"] or "First",
                    weekday=int(fields["weekday"] or 0),
                    offset=fields.get("offset") or 0,
                )
            case Choice.MONTH_DAYS:
                return Recurrence(frequency, every, days=_days(fields["month_days"]))
            case Choice.DAILY:
                return Recurrence(frequency, every)

    def check_first_day(self, first: date) -> None:
        """There is a day on which it opens, from the first on."""
        picked = self.cleaned_data.get("repeats") or EXPRESSION
        if self.recurrence is None:
            return
        try:
            check_possible(self.recurrence, first)
        except RecurrenceError as error:
            self.add_error((FIELDS_OF[picked] or ("every",))[-1], recurrence_error_words(error))

    @property
    def recurrence_groups(self) -> list[tuple[str, Any, list[forms.BoundField]]]:
        """Each choice with its label and its own fields."""
        return [(value, label, [self[name] for name in FIELDS_OF[value]]) for value, label in CHOICES]


def _days(text: str) -> tuple[int, ...]:
    """Days of a month, as people list them."""
    found = set()
    for part in re.split(r"[\s,;、]+", unicodedata.normalize("NFKC", text).strip()):
        if not (part.isascii() and part.isdecimal() and len(part) <= 2 and 1 <= int(part) <= 31):
            raise RecurrenceError(RecurrenceProblem.BAD_DAY, part)
        found.add(int(part))
    return tuple(sorted(found))


def recurrence_or_none(text: str) -> Recurrence | None:
    """The recurrence that Azure's text means; None if it means none."""
    try:
        return parse_recurrence(text)
    except RecurrenceError:
        return None


def fields_of_recurrence(text: str) -> Mapping[str, Any]:
    """What the picker shows of a kept recurrence; one that cannot be read stands as it is where Azure's text goes."""
    found = recurrence_or_none(text)
    if found is None:
        return {"repeats": EXPRESSION, "recur_every": text}
    choice = choice_of(found)
    fields: dict[str, Any] = {"repeats": choice.value, "every": found.every, "recur_every": str(found)}
    match choice:
        case Choice.WEEKLY:
            fields["weekdays"] = list(found.weekdays)
        case Choice.PATCH_TUESDAY:
            fields["days_after"] = found.offset
        case Choice.NTH_WEEKDAY:
            fields |= {"ordinal": found.ordinal, "weekday": found.weekday, "offset": found.offset}
        case Choice.MONTH_DAYS:
            fields["month_days"] = _listed(found.days)
        case Choice.DAILY:
            pass
    return fields


def _listed(days: Iterable[int]) -> str:
    return ", ".join(map(str, days))
