"""In which order machines go, and what stops them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from patching.terms import (
    InstallationPlan,
)
from updates.models import RolloutSource
from updates.selectors.bulk import values_of_tag
from updates.services.rollouts import RolloutPlan
from vms.forms.confirm import CountForm
from vms.models import VirtualMachineQuerySet


def soak_minutes_field() -> forms.IntegerField:
    """How long a wave is watched before the next one."""
    return forms.IntegerField(
        label=_("Wait between waves (in minutes)"), required=False, min_value=0, max_value=1_440, initial=0
    )


class RolloutForm(forms.Form):
    """In which order machines go, and what stops them."""

    rollout_name = forms.CharField(
        label=_("Name of the rollout"),
        required=False,
        max_length=150,
        help_text=_("Shown wherever the rollout is; empty: what it does on how many machines."),
    )
    availability_first = forms.BooleanField(
        label=_("Availability first: in waves, never both of a pair of regions, one zone at a time"), required=False
    )
    rings = forms.CharField(
        label=_("Rings"),
        required=False,
        max_length=500,
        help_text=_("Values of the tag below, in their order, e.g. pilot, broad. Machines with none of them go last."),
    )
    ring_tag = forms.CharField(label=_("Tag of the rings"), required=False, max_length=100, initial="ring")
    ring_hours = forms.IntegerField(
        label=_("Wait between rings (in hours)"), required=False, min_value=0, max_value=720, initial=24
    )
    soak_minutes = soak_minutes_field()
    most_failures = forms.IntegerField(
        label=_("Pause if failures exceed"), required=False, min_value=0, max_value=10_000, initial=2
    )
    most_percent = forms.IntegerField(
        label=_("and failure rate above (%)"), required=False, min_value=0, max_value=100, initial=5
    )

    def __init__(self, data: Any = None, *, vms: VirtualMachineQuerySet) -> None:
        """`vms`: the machines that are to be updated."""
        super().__init__(data)
        self._vms = vms

    def clean_rings(self) -> tuple[str, ...]:
        """The names in their order, each once."""
        text = str(self.cleaned_data["rings"]).replace("、", ",").replace("，", ",")
        names = [name.strip() for name in text.split(",") if name.strip()]
        if len({name.casefold() for name in names}) < len(names):
            raise forms.ValidationError(_("A ring is named once."))
        return tuple(names)

    def clean(self) -> dict[str, Any]:
        """Rings need the tag that they are values of, and each has a machine: the others would all go last, at once."""
        fields = self.cleaned_data
        if fields.get("rings") and not fields.get("ring_tag"):
            self.add_error("ring_tag", _("Say which tag has these values."))
        if not self.errors and fields["rings"]:
            known = values_of_tag(self._vms, fields["ring_tag"])
            for name in fields["rings"]:
                if name.casefold() not in known:
                    words = _("None of these machines has the tag %(tag)s with the value %(value)s.")
                    self.add_error("rings", words % {"tag": fields["ring_tag"], "value": name})
        return fields

    def spec(self, plan: InstallationPlan) -> RolloutPlan | None:
        """The rollout that a valid form asks for; None: everything at once."""
        fields = self.cleaned_data
        if not (fields["availability_first"] or fields["rings"]):
            return None
        return RolloutPlan(
            name=fields["rollout_name"],
            source=RolloutSource.ON_DEMAND,
            plan=plan,
            is_availability_first=fields["availability_first"],
            ring_tag=fields["ring_tag"],
            rings=fields["rings"],
            ring_soak_minutes=60 * _or(fields["ring_hours"], 0),
            soak_minutes=_or(fields["soak_minutes"], 0),
            most_failures=_or(fields["most_failures"], 2),
            most_percent=_or(fields["most_percent"], 5),
        )


class WayBackForm(CountForm):
    """A rollback of many machines stops at the first failure and follows availability; it is confirmed by their number."""

    soak_minutes = soak_minutes_field()
    field_order = ("soak_minutes", "confirm")

    def __init__(self, data: Any = None, *, count: int) -> None:
        """`count`: how many of the machines have a way back."""
        super().__init__(data, count=count)
        words = _("Type %(count)s to confirm that so many machines are rolled back.")
        self.fields["confirm"].help_text = words % {"count": count}

    @property
    def spec(self) -> RolloutPlan:
        """The rollout that a valid form asks for."""
        return RolloutPlan(
            name="",
            source=RolloutSource.ON_DEMAND,
            plan=None,
            most_failures=0,
            most_percent=0,
            soak_minutes=_or(self.cleaned_data["soak_minutes"], 0),
        )


class RestartManyForm(CountForm):
    """In which order machines are restarted; it is confirmed by the number of those that will be."""

    availability_first = forms.BooleanField(
        label=_("Availability first: in waves, never both of a pair of regions, one zone at a time"),
        required=False,
        initial=True,
    )
    soak_minutes = soak_minutes_field()
    field_order = ("availability_first", "soak_minutes", "confirm")

    def __init__(self, data: Any = None, *, count: int) -> None:
        """`count`: how many of the machines will be restarted."""
        super().__init__(data, count=count)
        words = _("Type %(count)s to confirm that so many machines are restarted.")
        self.fields["confirm"].help_text = words % {"count": count}

    @property
    def spec(self) -> RolloutPlan | None:
        """The rollout that a valid form asks for, which pauses at the first failure; None: all at once."""
        if not self.cleaned_data["availability_first"]:
            return None
        return RolloutPlan(
            name="",
            source=RolloutSource.ON_DEMAND,
            plan=None,
            is_restart=True,
            most_failures=0,
            most_percent=0,
            soak_minutes=_or(self.cleaned_data["soak_minutes"], 0),
        )


def _or(number: int | None, default: int) -> int:
    """A number that may be left empty."""
    return default if number is None else number
