"""Filters of the fleet's history; each is a parameter of the address."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from patching.codes import MOST_CHARACTERS
from patching.kb_numbers import without_invisible
from ui.widgets import QuickSelect
from updates.choices import OPERATION_KINDS, PERIODS
from updates.selectors.fleet_history import EVERY_KIND, NO_KB, HistoryAsked, Result, StartedBy
from vms.choices import PRODUCT_LINES
from vms.selectors import FilterOptions

RESULTS = [
    ("", _("All")),
    (Result.SUCCEEDED.value, _("Succeeded")),
    (Result.WITH_WARNINGS.value, _("Completed with warnings")),
    (Result.FAILED.value, _("Failed")),
    (Result.CONTRADICTED.value, _("Contradicted")),
    (Result.CANCELLED.value, _("Cancelled")),
    (Result.NOT_ENDED.value, _("Not ended yet")),
]
KINDS = [("", _("All but assessments")), *OPERATION_KINDS, (EVERY_KIND, _("All, assessments too"))]
STARTED_BY = [
    ("", _("All")),
    (StartedBy.ME.value, _("Me")),
    (StartedBy.PEOPLE.value, _("People")),
    (StartedBy.PORTAL.value, _("The portal by itself")),
]
DEFAULT_DAYS = 7
_KB_NUMBER = re.compile(r"(?:KB)?([0-9]{4,10})", re.IGNORECASE)


class HistoryForm(forms.Form):
    """What is asked of the history. What cannot be read is refused: nothing is shown in its place."""

    period = forms.ChoiceField(label=_("Period"), choices=PERIODS, required=False, widget=QuickSelect)
    kind = forms.ChoiceField(label=_("Kind"), choices=KINDS, required=False, widget=QuickSelect)
    result = forms.ChoiceField(label=_("Result"), choices=RESULTS, required=False, widget=QuickSelect)
    reason = forms.CharField(label=_("Reason (error code)"), max_length=MOST_CHARACTERS, required=False)
    kb = forms.CharField(label=_("KB"), max_length=20, required=False)
    by = forms.ChoiceField(label=_("Started by"), choices=STARTED_BY, required=False, widget=QuickSelect)
    connection = forms.TypedChoiceField(
        label=_("Connection"), choices=[], coerce=int, empty_value=None, required=False, widget=QuickSelect
    )
    subscription = forms.TypedChoiceField(
        label=_("Subscription"), choices=[], coerce=int, empty_value=None, required=False, widget=QuickSelect
    )
    resource_group = forms.CharField(label=_("Resource group"), max_length=90, required=False)
    product_line = forms.ChoiceField(
        label=_("Product line"), choices=[("", _("All")), *PRODUCT_LINES], required=False, widget=QuickSelect
    )
    tag = forms.CharField(label=_("Tag"), max_length=200, required=False, validators=[RegexValidator(r"^\s*[^=\s]")])

    def __init__(self, data: Any, *, options: FilterOptions) -> None:
        super().__init__({"period": str(DEFAULT_DAYS)} | {name: data[name] for name in data})
        for name, offered in (("connection", options.connections), ("subscription", options.subscriptions)):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = [("", _("All")), *offered]

    def clean_kb(self) -> str:
        """The digits of one KB, or the word for none."""
        text = without_invisible(unicodedata.normalize("NFKC", self.cleaned_data["kb"])).strip()
        if not text or text == NO_KB:
            return text
        number = _KB_NUMBER.fullmatch(text)
        if number is None:
            raise forms.ValidationError(_("Enter one KB number, as KB5034129."))
        return number[1]

    @property
    def asked(self) -> HistoryAsked:
        """What a valid form asks for."""
        said = self.cleaned_data
        return HistoryAsked(
            days=int(said["period"] or DEFAULT_DAYS),
            kind=said["kind"],
            result=said["result"],
            reason=said["reason"].strip(),
            kb_number=said["kb"],
            started_by=said["by"],
            connection=said["connection"],
            subscription=said["subscription"],
            resource_group=said["resource_group"].strip(),
            product_line=said["product_line"],
            tag=said["tag"].strip(),
        )

    @property
    def filters(self) -> dict[str, str]:
        """What a valid form asks for as it was typed, for the record of an export."""
        return {name: str(value) for name, value in self.cleaned_data.items() if value}


class RunsForm(forms.Form):
    """What is asked of the runs on many machines. What cannot be read is refused."""

    period = forms.ChoiceField(label=_("Period"), choices=PERIODS, required=False, widget=QuickSelect)
    kind = forms.ChoiceField(
        label=_("Kind"), choices=[("", _("All")), *OPERATION_KINDS], required=False, widget=QuickSelect
    )
    by = forms.ChoiceField(label=_("Started by"), choices=STARTED_BY, required=False, widget=QuickSelect)

    def __init__(self, data: Any) -> None:
        super().__init__({"period": str(DEFAULT_DAYS)} | {name: data[name] for name in data})

    @property
    def asked(self) -> HistoryAsked:
        """What a valid form asks for."""
        said = self.cleaned_data
        return HistoryAsked(days=int(said["period"] or DEFAULT_DAYS), kind=said["kind"], started_by=said["by"])
