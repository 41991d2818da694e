"""Filters and order of pending updates; each is a parameter of the address."""

from __future__ import annotations

from collections.abc import Mapping

from django import forms
from django.utils.translation import gettext_lazy as _

from updates.choices import CLASSIFICATION_CHOICES, REBOOT_BEHAVIORS
from updates.selectors.pending import DEFAULT_ORDER, ORDERS, Asked


class PendingForm(forms.Form):
    """Class and reboot behaviour. A value that does not exist narrows nothing, and its field says so."""

    classification = forms.ChoiceField(
        label=_("Classification"), choices=[("", _("All")), *CLASSIFICATION_CHOICES], required=False
    )
    reboot = forms.ChoiceField(label=_("Reboot"), choices=[("", _("All")), *REBOOT_BEHAVIORS], required=False)

    def __init__(self, query: Mapping[str, str]) -> None:
        super().__init__(query, use_required_attribute=False)
        order = query.get("sort", DEFAULT_ORDER)
        self.order = order if order in ORDERS else DEFAULT_ORDER

    @property
    def asked(self) -> Asked:
        """What was asked for, as far as it can be read."""
        self.is_valid()
        said = self.cleaned_data
        return Asked(said.get("classification", ""), said.get("reboot", ""), self.order)

    @property
    def is_active(self) -> bool:
        """Whether it narrows anything."""
        return bool(self.asked.classification or self.asked.reboot)

    @property
    def problems(self) -> list[str]:
        """What it does not do of what was asked, for a file, which has no fields."""
        return [f"{self[name].label}: {error}" for name, errors in self.errors.items() for error in errors]
