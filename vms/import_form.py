"""The form of an import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.utils.translation import gettext_lazy as _

from vms.import_models import ImportJob
from vms.models import Connection
from vms.services.import_jobs import file_arrived, take_over
from vms.services.inventory_files import InventoryFileError
from vms.uploads import StagedFile

if TYPE_CHECKING:
    from django.contrib.auth.models import User


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
    connection = forms.ModelChoiceField(
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

    def __init__(
        self, data: Any = None, files: Any = None, *, user: User, refused: InventoryFileError | None = None
    ) -> None:
        super().__init__(data, files)
        self._user = user
        self._refused = refused

    def clean(self) -> dict[str, Any]:
        """There has to be a file, or what a dry run kept."""
        fields = self.cleaned_data
        if self._refused is not None:
            self.add_error("file", str(self._refused))
        elif not self.errors and not fields["file"] and not fields["draft"]:
            self.add_error("file", _("Choose a file."))
        return fields

    def start(self) -> ImportJob | None:
        """Start what the valid form asks for. None: it is not kept any more, and the form's errors say so."""
        fields = self.cleaned_data
        connection, is_dry_run = fields["connection"], fields["is_dry_run"]
        if fields["file"]:
            file = cast(StagedFile, fields["file"])
            file_arrived(
                job_id=file.job_id,
                connection=connection,
                file_name=file.name or "",
                size=file.size or 0,
                is_dry_run=is_dry_run,
            )
            return ImportJob.objects.get(pk=file.job_id)
        job = take_over(job_id=fields["draft"], requested_by=self._user, connection=connection, is_dry_run=is_dry_run)
        if job is None:
            self.add_error("file", _("This file is not kept any more. Choose it again."))
        return job
