"""What a person says of a service principal."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _

from vms.choices import ROLES, Role
from vms.selectors import NoSuchPlaceError, place_by_id
from vms.services.principals import LONGEST_DAYS

FIRST_DAYS = 365


class SecretForm(forms.Form):
    """How long a secret is valid, and who uses it."""

    days = forms.IntegerField(
        label=_("Valid for (days)"), min_value=1, max_value=LONGEST_DAYS, initial=FIRST_DAYS, help_text=_("1 to 730.")
    )
    label = forms.CharField(
        label=_("Used by"), max_length=60, required=False, help_text=_("Where the secret is kept, e.g. the pipeline.")
    )


class PrincipalForm(SecretForm):
    """A new principal: its name, its role, and where the role holds."""

    name = forms.CharField(
        label=_("Name"),
        max_length=60,
        validators=[RegexValidator(r"^[\w.@+ -]+$", _("Letters, digits, blanks and . @ + - _ only."))],
    )
    role = forms.ChoiceField(label=_("Role"), choices=ROLES, initial=Role.READER.value)
    scope = forms.CharField(
        label=_("Scope"),
        max_length=500,
        initial="/",
        help_text=_("/ for everything, or the resource id of a subscription, a resource group or a machine."),
    )
    field_order = ("name", "role", "scope", "days", "label")

    def clean_scope(self) -> Any:
        """The place that the scope names; None for everything."""
        try:
            return place_by_id(self.cleaned_data["scope"])
        except NoSuchPlaceError:
            raise forms.ValidationError(_("Nothing in the inventory has this id.")) from None

    def say_name_is_taken(self) -> None:
        """A principal has this name."""
        self.add_error("name", _("A service principal of this name is there already."))
