"""When nothing may run, on which machines, why; and which machines a freeze lets through until when."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from patching.recurrence import zone_of
from patching.scope import Scope, ScopeError
from ui.dates import DayField
from updates.forms.scope import MachineFields, ScopeFields
from updates.forms.zones import ZoneFields, reader_zone
from updates.models import Freeze, FreezeException
from updates.selectors.freezes import meant_by

_TIME = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
EVERYBODY, SOME = "all", "some"
SCOPE_FIELDS = tuple(ScopeFields.base_fields)


class FreezeForm(ScopeFields, ZoneFields):
    """When nothing may run, on the whole fleet or on a part of it, and why."""

    name = forms.CharField(
        label=_("Reason"), max_length=100, help_text=_("Shown wherever something waits, e.g. New Year.")
    )
    begins_on = DayField(label=_("First day"))
    begins_at = forms.TimeField(label=_("Begins at"), widget=_TIME)
    ends_on = DayField(label=_("Last day"))
    ends_at = forms.TimeField(label=_("Ends at"), widget=_TIME)
    whom = forms.ChoiceField(
        label=_("Machines"),
        choices=[(EVERYBODY, _("The whole fleet")), (SOME, _("Those that the fields below describe"))],
        widget=forms.RadioSelect,
        initial=EVERYBODY,
    )
    field_order = ("name", "time_zone", "begins_on", "begins_at", "ends_on", "ends_at", "whom", *SCOPE_FIELDS)

    def __init__(self, data: Mapping[str, Any] | None = None, *, now: datetime, instance: Freeze | None = None) -> None:
        super().__init__(data, initial=_initial(instance) if instance else {"time_zone": reader_zone()})
        self.now, self.instance = now, instance

    def clean(self) -> dict[str, Any]:
        """It ends after it begins and after now, and means the whole fleet or a part that is described."""
        fields = super().clean()
        begins_at, ends_at = self.instant("begins_on", "begins_at"), self.instant("ends_on", "ends_at")
        if begins_at and ends_at and ends_at <= begins_at:
            self.add_error("ends_on", _("It ends before it begins."))
        elif ends_at and ends_at <= self.now:
            self.add_error("ends_on", _("This is over already."))
        if not self.errors and self.is_for_all is self.has_scope:
            self.add_error(
                "whom",
                _("The whole fleet is frozen: leave the fields below empty.")
                if self.is_for_all
                else _("Say which machines: by subscription, resource group, location, SKU or tag."),
            )
        return fields

    @property
    def is_for_all(self) -> bool:
        """Whether valid fields mean the whole fleet."""
        return bool(self.cleaned_data["whom"] == EVERYBODY)

    @property
    def freeze(self) -> Freeze:
        """What a valid form asks for, not yet saved."""
        row = copy(self.instance) if self.instance else Freeze()
        begins_at, ends_at = self.instant("begins_on", "begins_at"), self.instant("ends_on", "ends_at")
        assert begins_at is not None
        assert ends_at is not None
        row.name, row.time_zone = self.cleaned_data["name"], self.cleaned_data["time_zone"]
        row.begins_at, row.ends_at = begins_at, ends_at
        row.is_for_all, row.scope = self.is_for_all, self.scope.as_json
        return row

    @property
    def means(self) -> Q | None:
        """The machines that valid fields mean; None: every one."""
        return meant_by(self.freeze)


def _initial(row: Freeze) -> dict[str, Any]:
    """What the form shows of a freeze that is there, on the clocks that it was typed on; what cannot be read is empty."""
    found: dict[str, Any] = {"name": row.name, "time_zone": "", "whom": EVERYBODY if row.is_for_all else SOME}
    try:
        zone = zone_of(row.time_zone)
    except KeyError:
        pass
    else:
        begins_at, ends_at = row.begins_at.astimezone(zone), row.ends_at.astimezone(zone)
        found |= {
            "time_zone": row.time_zone,
            "begins_on": begins_at.date(),
            "begins_at": begins_at.time(),
            "ends_on": ends_at.date(),
            "ends_at": ends_at.time(),
        }
    with suppress(ScopeError):
        found |= Scope.from_json(row.scope).as_json
    return found


class ExceptionForm(MachineFields, ZoneFields):
    """Which machines a freeze lets through, until when, and why."""

    reason = forms.CharField(label=_("Reason"), max_length=200)
    expires_on = DayField(label=_("Until (day)"))
    expires_at = forms.TimeField(label=_("Until (time)"), widget=_TIME)
    field_order = ("reason", "time_zone", "expires_on", "expires_at", "machines", *SCOPE_FIELDS)

    def __init__(self, data: Mapping[str, Any] | None = None, *, freeze: Freeze, now: datetime) -> None:
        super().__init__(data, initial=_first_day(freeze, now))
        self.freeze, self.now = freeze, now

    def clean(self) -> dict[str, Any]:
        """It expires after now, not after the freeze, and means a machine."""
        fields = super().clean()
        expires_at = self.instant("expires_on", "expires_at")
        if expires_at and expires_at <= self.now:
            self.add_error("expires_on", _("This is over already."))
        elif expires_at and expires_at > self.freeze.ends_at:
            self.add_error("expires_on", _("The freeze ends before that."))
        self.check_some()
        return fields

    @property
    def exception(self) -> FreezeException:
        """What a valid form asks for, not yet saved."""
        expires_at = self.instant("expires_on", "expires_at")
        assert expires_at is not None
        return FreezeException(
            freeze=self.freeze,
            reason=self.cleaned_data["reason"],
            expires_at=expires_at,
            scope=self.scope.as_json,
        )


def _first_day(freeze: Freeze, now: datetime) -> dict[str, Any]:
    """An exception is for a day, unless somebody says otherwise."""
    ends_at = timezone.localtime(min(freeze.ends_at, max(now, freeze.begins_at) + timedelta(days=1)))
    return {"time_zone": reader_zone(), "expires_on": ends_at.date(), "expires_at": ends_at.time().replace(second=0)}
