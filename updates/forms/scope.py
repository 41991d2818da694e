"""Machines by name and by what they have in common, as people say them in a form."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from patching.scope import SCOPE_NAMES, Scope
from updates.forms.plan import and_more
from updates.selectors.scopes import scope_filter, unknown_in_scope
from vms.choices import SelectionProblem
from vms.filters import Problem, values_of
from vms.models import ResourceGroup, Subscription
from vms.regions import region_pairs
from vms.selection import NOTHING, VmSelection
from vms.selectors import vms_by_name

MOST_SUGGESTED = 500


class ScopeFields(forms.Form):
    """What a machine must be to be meant: all that is given here, and it must be there."""

    subscription = forms.ModelChoiceField(
        label=_("Subscription"), queryset=Subscription.objects.order_by("name"), required=False, empty_label=_("All")
    )
    resource_group = forms.CharField(
        label=_("Resource group"),
        max_length=90,
        required=False,
        widget=forms.TextInput(attrs={"list": "known-groups", "autocomplete": "off"}),
    )
    location = forms.CharField(
        label=_("Location"),
        max_length=60,
        required=False,
        widget=forms.TextInput(attrs={"list": "known-locations", "autocomplete": "off"}),
    )
    image_sku = forms.CharField(label=_("SKU"), max_length=100, required=False)
    tag_name = forms.CharField(label=_("Tag"), max_length=100, required=False)
    tag_value = forms.CharField(label=_("Value of the tag"), max_length=200, required=False)

    def clean(self) -> dict[str, Any]:
        """Nothing unknown, nothing twice, and no value that no machine has."""
        fields = self.cleaned_data
        for name in sorted(set(self.data) - set(self.fields) - {"go", "csrfmiddlewaretoken", "reason"}):
            self.add_error(None, Problem(SelectionProblem.UNKNOWN_NAME, name).words)
        for name in SCOPE_NAMES:
            if len(set(values := values_of(self.data, name))) > 1:
                self.add_error(None, Problem(SelectionProblem.GIVEN_TWICE, name, ", ".join(values)).words)
        if fields.get("tag_value") and not fields.get("tag_name"):
            self.add_error("tag_name", _("Say which tag has this value."))
        if not self.errors:
            for name in unknown_in_scope(self.scope):
                self.add_error(
                    name, _("No machine has “%(value)s” here. Correct it, or leave it empty.") % {"value": fields[name]}
                )
        return fields

    @property
    def known(self) -> dict[str, list[str]]:
        """What can be chosen by name: resource groups, and the regions of Azure."""
        groups = ResourceGroup.objects.order_by("name").values_list("name", flat=True).distinct()
        return {"groups": list(groups[:MOST_SUGGESTED]), "locations": sorted(region_pairs())}

    @property
    def scope(self) -> Scope:
        """The dynamic scope that valid fields say."""
        subscription = self.cleaned_data["subscription"]
        texts = {name: self.cleaned_data[name] for name in SCOPE_NAMES if name != "subscription"}
        return Scope(subscription=subscription.pk if subscription else None, **texts)

    @property
    def has_scope(self) -> bool:
        """Whether valid fields ask for anything."""
        return scope_filter(self.scope) is not None


class MachineFields(ScopeFields):
    """Machines by name, besides those that the scope means."""

    machines = forms.CharField(
        label=_("Machines"),
        required=False,
        max_length=1_000_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_(
            "One per line: a name, resource group/name, subscription/resource group/name, or the resource ID. Besides "
            "these, it means all that the fields below describe."
        ),
    )
    selection: VmSelection = NOTHING

    @property
    def scope_fields(self) -> list[str]:
        """The names of the fields that say which machines are meant."""
        return list(MachineFields.base_fields)

    def clean_machines(self) -> str:
        """Every line names exactly one machine; the first that does not is named, and how many more there are."""
        text = str(self.cleaned_data["machines"])
        wanted = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
        found = vms_by_name(wanted)
        wrong = [line for line in wanted if len(found[line]) != 1]
        if wrong:
            words = (
                _("Several machines are called “%(name)s”; write subscription/resource group/name, or the resource ID.")
                if found[wrong[0]]
                else _("There is no machine “%(name)s”.")
            )
            raise forms.ValidationError(and_more(str(words % {"name": wrong[0]}), len(wrong) - 1))
        self.selection = VmSelection.of(found[line][0] for line in wanted)
        return text

    def check_some(self) -> None:
        """A machine is meant by name or by a field."""
        if not self.errors and not self.selection.count and not self.has_scope:
            self.add_error(
                "machines", _("Say which machines: by name, subscription, resource group, location, SKU or tag.")
            )
