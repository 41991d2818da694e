"""When a window opens, what is installed in it, and on which machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from patching.recurrence import (
    BlackoutError,
    Recurrence,
    RecurrenceError,
    blackouts_to_json,
    check_possible,
    parse_blackouts,
    parse_recurrence,
    windows_name,
    windows_zones,
)
from patching.terms import (
    InstallationPlan,
)
from ui.dates import DayField
from updates.forms.plan import PlanFields, classifications_at_first, fields_of_plan
from updates.forms.scope import MachineFields
from updates.models import MaintenanceConfiguration
from updates.plans import plan_to_json
from updates.selectors.automation import names_of_machines
from updates.selectors.maintenance import read_columns
from updates.texts import (
    BLACKOUT_PROBLEMS,
    RECURRENCE_PROBLEMS,
    Text,
)

_MAINTENANCE_FIELDS = (
    "name",
    "starts_on",
    "starts_at",
    "time_zone",
    "duration_minutes",
    "recur_every",
    "expires_on",
    "blackouts",
    "is_availability_first",
    "catch_up_hours",
)


def _as_initial(row: MaintenanceConfiguration) -> dict[str, Any]:
    """What the form shows of a configuration that is there.

    What cannot be read is left empty; blackouts are shown as they are kept: saved unseen, they would be gone.
    """
    found = {name: getattr(row, name) for name in _MAINTENANCE_FIELDS}
    found["machines"] = lambda: "\n".join(names_of_machines(row))  # read where the form is shown
    values, _troubles = read_columns(row)
    if (blackouts := values.get("blackouts")) is not None:
        found["blackouts"] = "\n".join(f"{period.first} to {period.last}" for period in blackouts)
    else:
        found["blackouts"] = json.dumps(row.blackouts, ensure_ascii=False)
    if scope := values.get("scope"):
        found |= scope.as_json
    if plan := values.get("plan"):
        found |= fields_of_plan(plan)
    return found


def _of_new() -> dict[str, Any]:
    """What the form of a new configuration begins with."""
    zone = windows_name(timezone.get_current_timezone_name())
    return {"time_zone": zone, "classifications": classifications_at_first()}


SCHEDULE_FIELDS = (
    "name",
    "time_zone",
    "starts_on",
    "starts_at",
    "recur_every",
    "duration_minutes",
    "expires_on",
    "catch_up_hours",
    "blackouts",
)
MEMBER_FIELDS = (
    "machines",
    "subscription",
    "resource_group",
    "location",
    "image_sku",
    "tag_name",
    "tag_value",
    "is_availability_first",
)


def recurrence_error_words(error: RecurrenceError) -> str:
    """What is wrong with a recurrence, in words."""
    return str(RECURRENCE_PROBLEMS[error.problem]) % {"entry": error.entry}


class MaintenanceForm(MachineFields, PlanFields):
    """When a window opens, what is installed in it, and on which machines."""

    name = forms.CharField(label=_("Name"), max_length=100)
    starts_on = DayField(label=_("First day"))
    starts_at = forms.TimeField(label=_("Opens at"), widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"))
    time_zone = forms.ChoiceField(
        label=_("Time zone"), choices=[("", "–"), *((name, name) for name in windows_zones())]
    )
    duration_minutes = forms.IntegerField(
        label=_("Duration (in minutes)"), min_value=90, max_value=235, initial=120, help_text=_("90 to 235.")
    )
    recur_every = forms.CharField(
        label=_("Repeats"),
        max_length=100,
        initial="Month Second Tuesday Offset4",
        help_text=_("As Azure writes it: Day, 3Days, Week Saturday,Sunday, Month day15, Month Second Tuesday Offset4."),
    )
    expires_on = DayField(label=_("Last day"), required=False)
    blackouts = forms.CharField(
        label=_("Blackout periods"),
        required=False,
        max_length=2_000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_(
            "One per line, e.g. 2026-12-24 to 2027-01-06: days of the time zone above. Nothing starts in them, and what would "
            "run into them is cut short."
        ),
    )
    is_availability_first = forms.BooleanField(
        label=_("Availability first: in waves, never both of a pair of regions, one zone at a time"), required=False
    )
    catch_up_hours = forms.IntegerField(
        label=_("Catch up (in hours)"),
        min_value=0,
        max_value=168,
        initial=0,
        required=False,
        help_text=_(
            "A machine that was off is updated if it runs within so many hours after the window. 0: it waits for the next window."
        ),
    )
    field_order = (*SCHEDULE_FIELDS, *MEMBER_FIELDS)

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, instance: MaintenanceConfiguration | None = None
    ) -> None:
        super().__init__(data, initial=_of_new() if instance is None else _as_initial(instance))
        self.instance = instance
        self.recurrence: Recurrence | None = None

    @property
    def sections(self) -> list[tuple[Text, list[forms.BoundField]]]:
        """The fields under the question they answer: when, on which machines, what."""
        plan_fields = tuple(name for name in self.fields if name not in self.field_order)
        titles = ((_("Schedule"), SCHEDULE_FIELDS), (_("Scope"), MEMBER_FIELDS), (_("Updates"), plan_fields))
        return [(title, [self[name] for name in names]) for title, names in titles]

    def clean_name(self) -> str:
        """A name is there once."""
        name = str(self.cleaned_data["name"])
        others = MaintenanceConfiguration.objects.filter(name__iexact=name)
        if (others.exclude(pk=self.instance.pk) if self.instance else others).exists():
            raise forms.ValidationError(_("There is a maintenance configuration of this name."))
        return name

    def clean_catch_up_hours(self) -> int:
        """Empty is 0."""
        return int(self.cleaned_data["catch_up_hours"] or 0)

    def clean_recur_every(self) -> str:
        """The recurrence as Azure writes it."""
        try:
            self.recurrence = parse_recurrence(self.cleaned_data["recur_every"])
        except RecurrenceError as error:
            raise forms.ValidationError(recurrence_error_words(error)) from None
        return str(self.recurrence)

    def clean_blackouts(self) -> list[list[str]]:
        """First and last day of each period."""
        try:
            found = parse_blackouts(self.cleaned_data["blackouts"])
        except BlackoutError as error:
            words = str(BLACKOUT_PROBLEMS[error.problem]) % {"entry": error.entry[:60]}
            raise forms.ValidationError(words) from None
        return blackouts_to_json(found)

    def _check_days(self) -> None:
        """The last day is not before the first, and the recurrence has a day from the first on."""
        first, last = (self.cleaned_data.get(name) for name in ("starts_on", "expires_on"))
        if first and last and last < first:
            self.add_error("expires_on", _("The last day is before the first day."))
        if first and self.recurrence is not None:
            try:
                check_possible(self.recurrence, first)
            except RecurrenceError as error:
                self.add_error("recur_every", recurrence_error_words(error))

    def clean(self) -> dict[str, Any]:
        """A window needs something to install and somebody to install it on."""
        fields = self.cleaned_data
        if not self.errors:
            self.check_plan(self.plan)
        self._check_days()
        super().clean()
        self.check_some()
        return fields

    @property
    def plan(self) -> InstallationPlan:
        """What each window installs."""
        return self.plan_of(minutes=self.cleaned_data["duration_minutes"])

    @property
    def configuration(self) -> MaintenanceConfiguration:
        """What a valid form asks for, not yet saved."""
        fields = self.cleaned_data
        row = copy(self.instance) if self.instance else MaintenanceConfiguration()
        for name in _MAINTENANCE_FIELDS:
            setattr(row, name, fields[name])
        row.plan, row.scope = plan_to_json(self.plan), self.scope.as_json
        return row
