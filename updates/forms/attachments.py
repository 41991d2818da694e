"""Attaching machines of the list to a maintenance configuration, or detaching them: chosen, looked at, confirmed."""

from __future__ import annotations

from functools import cached_property

from django import forms
from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from updates.models import MaintenanceConfiguration
from updates.selectors.coverage import Attachment, attachment_of
from vms.choices import Role
from vms.forms.confirm import CountForm
from vms.selection import AskedSelection

ATTACH, DETACH = "attach", "detach"
TYPED_FROM = 25  # machines, from which on their number is typed


class AttachmentForm(forms.Form):
    """To which configuration, or from which one."""

    configuration = forms.ModelChoiceField(
        label=_("Maintenance configuration"), queryset=MaintenanceConfiguration.objects.order_by("name")
    )
    act = forms.ChoiceField(
        label=_("What to do"),
        choices=[(ATTACH, _("Attach the machines")), (DETACH, _("Detach the machines"))],
        widget=forms.RadioSelect,
        initial=ATTACH,
    )


class AttachmentWizard:
    """One page: which machines, which configuration, what it would change; then it is done."""

    def __init__(self, data: QueryDict, *, user: User, is_sent: bool) -> None:
        self.asked = AskedSelection(
            data, user=user, role=Role.OWNER, others={*AttachmentForm.base_fields, "go", "reason"}
        )
        self.count = self.asked.selection.count
        self.is_sent = is_sent and not self.asked.problems
        self.form = AttachmentForm(data if self.is_sent else None)
        self.is_save = self.is_sent and data.get("go") == "save"
        self.change = self.asked.change if self.is_save else None
        self.count_form = (
            CountForm(data if self.is_save else None, count=self.count)
            if self.count and (self.asked.is_all or self.count >= TYPED_FROM)
            else None
        )
        self.trouble = ""

    @cached_property
    def review(self) -> Attachment | None:
        """What it would change; None before a configuration is chosen."""
        if not (self.is_sent and self.form.is_valid()):
            return None
        return attachment_of(self.form.cleaned_data["configuration"], self.asked.selection)

    @cached_property
    def is_confirmed(self) -> bool:
        """Whether everything is as it must be."""
        valid = [form.is_valid() for form in (self.form, self.count_form) if form is not None]
        return self.is_save and all(valid) and self.change is None and self.count > 0

    @property
    def is_attaching(self) -> bool:
        """Whether valid fields put machines in."""
        return bool(self.form.cleaned_data["act"] == ATTACH)

    @property
    def status(self) -> int:
        """The status of the page."""
        is_wrong = self.asked.problems or self.form.errors or self.trouble or (self.is_save and not self.is_confirmed)
        return 422 if (is_wrong and self.is_sent) or (self.asked.problems and not self.asked.is_nothing_ticked) else 200
