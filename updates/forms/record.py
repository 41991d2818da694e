"""An act that cannot be undone is confirmed by typing the name of the machine."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from patching.rollback import RollbackOrder, RollbackRefusal
from updates.forms.install import RequestForm
from updates.texts import (
    error_text,
)
from vms.models import VirtualMachine


class NameForm(forms.Form):
    """An act that cannot be undone is confirmed by typing the name of the machine."""

    name = forms.CharField(
        label=_("Name of the machine"), max_length=80, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def __init__(self, data: Any = None, *, vm: VirtualMachine) -> None:
        super().__init__(data)
        self.vm = vm
        self.fields["name"].help_text = _("Type “%(name)s” to confirm.") % {"name": vm.name}

    def clean_name(self) -> str:
        """The name as it is, whatever the case."""
        name = str(self.cleaned_data["name"])
        if name.casefold() != self.vm.name.casefold():
            raise forms.ValidationError(_("This is not the name of the machine."))
        return name


class RollbackForm(RequestForm, NameForm):
    """The way back of one machine, confirmed by its name."""

    def __init__(self, data: Any = None, *, vm: VirtualMachine, way_back: RollbackOrder | RollbackRefusal) -> None:
        super().__init__(data, vm=vm)
        self.order = way_back if isinstance(way_back, RollbackOrder) else None
        self.refusal = None if isinstance(way_back, RollbackOrder) else error_text(way_back.value)

    def clean(self) -> dict[str, Any]:
        """Where there is no way back, no name leads there."""
        if self.refusal is not None:
            raise forms.ValidationError(str(self.refusal.title))
        return self.cleaned_data
