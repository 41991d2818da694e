"""The form of an import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.utils.translation import gettext_lazy as _

from vms.models import Connection
from vms.services.inventory_files import InventoryFileError
from vms.uploads import StagedFile

if TYPE_CHECKING:
    _ChoiceOfConnection = forms.ModelChoiceField[Connection]
else:
    _ChoiceOfConnection = forms.ModelChoiceField  # Django's class takes no parameter at run time


class _Connections(_ChoiceOfConnection):
    """Connections to choose from, each with how real it is."""

    def label_from_instance(self, obj: Connection) -> str:
        """The name, and the grade where it is known."""
        return f"{obj.name} · {obj.grade_words}" if obj.grade_words else obj.name


class ImportForm(forms.Form):
    """A file, the connection its VMs belong to, and whether to change anything.

    After a dry run its rows are kept for its person: `draft` is the job that has them, and no file has to be chosen again.
    """

    file = forms.FileField(
        label=_("Inventory file"),
        help_text=_(
            "What “az vm list -o json” prints, the list response of Azure Resource Manager, an answer of Resource Graph, or "
            "PowerShell's machines by ConvertTo-Json -Depth 20."
        ),
        allow_empty_file=True,
        required=False,
        widget=forms.FileInput(attrs={"accept": ".json,.jsonl,.ndjson,.txt,application/json"}),
    )
    draft = forms.UUIDField(required=False, widget=forms.HiddenInput)
    connection = _Connections(
        label=_("Connection"),
        queryset=Connection.objects.order_by("pk"),
        empty_label=None,
        help_text=_("New virtual machines are reached through this connection."),
    )
    is_dry_run = forms.BooleanField(
        label=_("Dry run"),
        required=False,
        help_text=_("Report what would happen and change nothing."),
    )

    def __init__(self, data: Any = None, files: Any = None, *, refused: InventoryFileError | None = None) -> None:
        super().__init__(data, files)
        self._refused = refused

    def clean(self) -> dict[str, Any]:
        """There has to be a file, or what a dry run kept."""
        fields = self.cleaned_data
        if self._refused is not None:
            self.add_error("file", str(self._refused))
        elif not self.errors and not fields["file"] and not fields["draft"]:
            self.add_error("file", _("Choose a file."))
        return fields

    @property
    def staged(self) -> StagedFile | None:
        """The file of a valid form; None: it asks for what a dry run kept."""
        return cast(StagedFile | None, self.cleaned_data["file"])

    def refuse_draft(self) -> None:
        """Say that what the dry run had checked is gone."""
        self.add_error("file", _("This file is not kept any more. Choose it again."))
