"""When a window opens, what is installed in it, and on which machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from patching.recurrence import BlackoutError, blackouts_to_json, parse_blackouts, windows_zones, zone_of
from patching.recurrence_picker import after_patch_tuesday
from patching.scope import Scope
from patching.terms import (
    InstallationPlan,
)
from ui.dates import DayField
from updates.forms.plan import PlanFields, classifications_at_first, fields_of_plan
from updates.forms.recurrence import (
    RECURRENCE_FIELDS,
    RecurrenceFields,
    Sentence,
    fields_of_recurrence,
    recurrence_or_none,
)
from updates.forms.scope import MachineFields
from updates.forms.zones import OWN_CLOCK, reader_zone, zone_or_own_choices
from updates.models import MaintenanceConfiguration
from updates.plans import plan_to_json
from updates.selectors.automation import names_of_machines
from updates.selectors.maintenance import read_columns
from updates.selectors.members import Members, members_for, members_kept
from updates.texts import (
    BLACKOUT_PROBLEMS,
    Text,
)

MOST_LIVE = 200  # machines that are judged while somebody still types
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
    if row.is_own_clock:
        found["time_zone"] = OWN_CLOCK
    found["machines"] = lambda: "\n".join(names_of_machines(row))  # read where the form is shown
    values, _troubles = read_columns(row)
    if (blackouts := values.get("blackouts")) is not None:
        found["blackouts"] = "\n".join(f"{period.first} to {period.last}" for period in blackouts)
    else:
        found["blackouts"] = json.dumps(row.blackouts, ensure_ascii=False)
    found |= fields_of_recurrence(row.recur_every)
    if scope := values.get("scope"):
        found |= scope.as_json
    if plan := values.get("plan"):
        found |= fields_of_plan(plan)
    return found


def _of_new() -> dict[str, Any]:
    """What the form of a new configuration begins with."""
    return {
        "time_zone": reader_zone(),
        "classifications": classifications_at_first(),
        **fields_of_recurrence(str(after_patch_tuesday(4))),
    }


SCHEDULE_FIELDS = (
    "name",
    "time_zone",
    "starts_on",
    "starts_at",
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


class MaintenanceForm(RecurrenceFields, MachineFields, PlanFields):
    """When a window opens, what is installed in it, and on which machines."""

    name = forms.CharField(label=_("Name"), max_length=100)
    time_zone = forms.ChoiceField(
        label=_("Time zone"),
        choices=zone_or_own_choices,
        help_text=_(
            "On each machine's own clock a window opens where it is that time: region by region, not all at once."
        ),
    )
    starts_on = DayField(label=_("First day"))
    starts_at = forms.TimeField(label=_("Opens at"), widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"))
    duration_minutes = forms.IntegerField(
        label=_("Duration (in minutes)"), min_value=90, max_value=235, initial=120, help_text=_("90 to 235.")
    )
    expires_on = DayField(label=_("Last day"), required=False)
    blackouts = forms.CharField(
        label=_("Blackout periods"),
        required=False,
        max_length=2_000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_(
            "One per line, e.g. 2026-12-24 to 2027-01-06: days of the clock above. Nothing starts in them, and what would "
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
    field_order = (*SCHEDULE_FIELDS, *RECURRENCE_FIELDS, *MEMBER_FIELDS)

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, instance: MaintenanceConfiguration | None = None
    ) -> None:
        super().__init__(data, initial=_of_new() if instance is None else _as_initial(instance))
        self.instance = instance

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
        if first:
            self.check_first_day(first)

    def clean(self) -> dict[str, Any]:
        """A window needs something to install and somebody to install it on."""
        fields = self.cleaned_data
        self.pick_recurrence()
        if not self.errors:
            self.check_plan(self.plan)
        self._check_days()
        super().clean()
        self.check_some()
        return fields

    @property
    def members(self) -> Members | None:
        """Who is meant as the form stands, whatever else it lacks; None while that cannot be read."""
        if self.is_bound:
            self.is_valid()  # cleans it, once
            if {*MachineFields.base_fields} & set(self.errors):
                return None
            is_own = self.cleaned_data.get("time_zone") == OWN_CLOCK
            return members_for(self.scope, self.selection.ids, most=MOST_LIVE, is_own_clock=is_own)
        if self.instance is None:
            return members_for(Scope(), (), most=MOST_LIVE)
        scope = read_columns(self.instance)[0].get("scope")
        return members_kept(self.instance, scope) if scope is not None else None

    @property
    def sentence(self) -> Sentence | None:
        """What the picker means as it stands, whatever else the form lacks; None: it means nothing yet."""
        today = timezone.localdate()
        fields: Mapping[str, Any] = self.initial
        if self.is_bound:
            self.is_valid()  # cleans it, once
            found, fields = self.recurrence, self.cleaned_data
        else:
            found = recurrence_or_none(fields.get("recur_every", ""))
        if found is None:
            return None
        name = fields.get("time_zone")
        zone = zone_of(name) if name in windows_zones() else None
        return Sentence(found, fields.get("starts_at"), zone, fields.get("starts_on"), today, name == OWN_CLOCK)

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
        row.is_own_clock = row.time_zone == OWN_CLOCK
        if row.is_own_clock:
            row.time_zone = ""
        row.plan, row.scope = plan_to_json(self.plan), self.scope.as_json
        return row
