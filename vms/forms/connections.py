"""Where and how machines are reached, and what simulated ones suffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _

from connectors.simulator import Misfortune
from patching.kb_numbers import KbNumbersError, parse_kb_numbers
from vms.choices import MISFORTUNES

if TYPE_CHECKING:
    pass


class PauseForm(forms.Form):
    """For how long nothing is started."""

    minutes = forms.TypedChoiceField(
        label=_("Pause for"),
        coerce=int,
        choices=[
            (15, _("15 minutes")),
            (60, _("1 hour")),
            (480, _("8 hours")),
            (0, _("Until somebody resumes it")),
        ],
    )


class MisfortuneForm(forms.Form):
    """What a simulated machine shall suffer from now on."""

    name = forms.CharField(label=_("Name of the machine"), max_length=80)
    misfortune = forms.ChoiceField(label=_("Misfortune"), choices=[("", _("None")), *MISFORTUNES], required=False)
    kb_number = forms.CharField(
        label=_("KB article"), max_length=20, required=False, help_text=_("Empty: whichever update comes.")
    )

    def clean(self) -> dict[str, Any]:
        """Some misfortunes happen with one update; the others have no use for a KB."""
        fields = self.cleaned_data
        try:
            fields["kb_numbers"] = parse_kb_numbers(fields.get("kb_number", ""))
        except KbNumbersError as error:
            self.add_error(
                "kb_number",
                _("“%(entry)s” is not a KB article; write 5034129 or KB5034129.") % {"entry": error.first_bad},
            )
        return fields

    @property
    def wish(self) -> str:
        """The value of the tag; empty: no misfortune."""
        name = self.cleaned_data["misfortune"]
        if not name or not Misfortune(name).names_an_update:
            return str(name)
        return " ".join(f"{name}:KB{number}" for number in self.cleaned_data["kb_numbers"]) or f"{name}:any"
