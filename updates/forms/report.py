"""What a report is asked for; each is a parameter of the address."""

from __future__ import annotations

from collections.abc import Mapping

from django import forms
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from patching.compliance import ClassStanding
from ui.widgets import QuickSelect
from updates.choices import CLASSIFICATION_CHOICES
from updates.selectors.report import MachinesAsked, ReportAsked

DEFAULT = ReportAsked()
MOST_DAYS = 365
PERIODS = [(7, _("Last 7 days")), (30, _("Last 30 days"))]
STANDINGS = [
    (ClassStanding.OVERDUE.value, _("Overdue")),
    (ClassStanding.UP_TO_DATE.value, _("Nothing missing")),
    (ClassStanding.IN_TIME.value, _("Missing, still in time")),
    (ClassStanding.NOT_KNOWN.value, _("Not known")),
]


class _WithDays(forms.Form):
    days = forms.IntegerField(label=_("Compliant within (days)"), min_value=1, max_value=MOST_DAYS, required=False)

    def clean_days(self) -> int:
        """The days; where none were said, the usual ones."""
        return int(self.cleaned_data["days"] or DEFAULT.days)


class ReportForm(_WithDays):
    """Days and period of a report. What cannot be read is refused: a report that says something else is no evidence."""

    period = forms.ChoiceField(label=_("Failures of"), choices=PERIODS, required=False, widget=QuickSelect)

    def __init__(self, query: Mapping[str, str]) -> None:
        super().__init__({"days": str(DEFAULT.days), "period": str(DEFAULT.period)} | dict(query))

    @property
    def asked(self) -> ReportAsked:
        """What a valid form asks for."""
        said = self.cleaned_data
        return ReportAsked(days=said["days"], period=int(said["period"] or DEFAULT.period))


class ReportMachinesForm(_WithDays):
    """Which machines behind a number of a report are asked for. What cannot be read is refused."""

    standing = forms.ChoiceField(label=_("Standing"), choices=STANDINGS, required=False)
    classification = forms.ChoiceField(
        label=_("Classification"), choices=[("", _("All")), *CLASSIFICATION_CHOICES], required=False
    )
    update = forms.CharField(
        label=_("Update"), max_length=64, required=False, validators=[RegexValidator(r"^[0-9A-Za-z-]+$")]
    )

    def __init__(self, query: Mapping[str, str]) -> None:
        super().__init__({"days": str(DEFAULT.days)} | dict(query), use_required_attribute=False)

    @property
    def asked(self) -> MachinesAsked:
        """What a valid form asks for."""
        said = self.cleaned_data
        return MachinesAsked(
            days=said["days"],
            standing=ClassStanding(said["standing"] or ClassStanding.OVERDUE),
            classification=said["classification"],
            update=said["update"],
        )
