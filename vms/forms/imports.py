"""An inventory file to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from vms.models import Connection
from vms.services.import_drafts import KeptFile, forget_file, keep_file, kept_file
from vms.services.imports import ImportFileError, ImportReport, check_size, import_vms

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class ImportForm(forms.Form):
    """A file, the connection its VMs belong to, and whether to change anything.

    After a dry run the file is kept for its person: `draft` names it, and no file has to be chosen again.
    """

    file = forms.FileField(
        label=_("Inventory file"),
        help_text=_(
            "What “az vm list -o json” prints, the list response of Azure Resource Manager, an answer of Resource Graph, or "
            "PowerShell's machines by ConvertTo-Json -Depth 20. Up to 50 MB."
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

    def __init__(self, data: Any = None, files: Any = None, *, user: User) -> None:
        super().__init__(data, files)
        self._user = user
        self.kept: KeptFile | None = None  # after a dry run, the file that need not be chosen again
        self.kept_as: UUID | None = None

    def clean_file(self) -> UploadedFile[bytes] | None:
        """Refuse a file over the limit before it is read."""
        upload = cast("UploadedFile[bytes] | None", self.cleaned_data["file"])
        try:
            check_size((upload.size or 0) if upload else 0)
        except ImportFileError as error:
            raise forms.ValidationError(str(error)) from None
        return upload

    def clean(self) -> dict[str, Any]:
        """A file that is chosen counts; else the one that was kept."""
        fields = self.cleaned_data
        if self.errors:
            return fields
        if fields["file"]:
            self.kept = KeptFile(fields["file"].name, fields["file"].read())
        elif fields["draft"]:
            self.kept = kept_file(user=self._user, token=fields["draft"], now=timezone.now())
            if self.kept is None:
                self.add_error("file", _("This file is not kept any more. Choose it again."))
        else:
            self.add_error("file", _("Choose a file."))
        return fields

    def run(self) -> ImportReport | None:
        """Import what the valid form holds. None: the file cannot be used, and the form's errors say why."""
        assert self.kept is not None
        is_dry_run = self.cleaned_data["is_dry_run"]
        try:
            report = import_vms(
                data=self.kept.data,
                connection=self.cleaned_data["connection"],
                file_name=self.kept.name,
                is_dry_run=is_dry_run,
            )
        except ImportFileError as error:
            self.add_error("file", str(error))
            return None
        if is_dry_run:
            self.kept_as = keep_file(user=self._user, file=self.kept, now=timezone.now())
        else:
            forget_file(user=self._user)
        return report
