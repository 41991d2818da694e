"""What people type about VMs, parsed and validated."""

from __future__ import annotations

from typing import cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from vms.models import Connection
from vms.services.imports import ImportFileError, ImportReport, check_size, import_vms


class ImportForm(forms.Form):
    """A file, the connection its VMs belong to, and whether to change anything."""

    file = forms.FileField(
        label=_("Inventory file"),
        help_text=_("What “az vm list -o json” prints, or the list response of Azure Resource Manager. Up to 50 MB."),
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ".json,application/json"}),
    )
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

    def clean_file(self) -> UploadedFile[bytes]:
        """Refuse a file over the limit before it is read."""
        upload = cast("UploadedFile[bytes]", self.cleaned_data["file"])
        try:
            check_size(upload.size or 0)
        except ImportFileError as error:
            raise forms.ValidationError(str(error)) from None
        return upload

    def run(self) -> ImportReport | None:
        """Import what the valid form holds. None: the file cannot be used, and the form's errors say why."""
        try:
            return import_vms(
                data=self.cleaned_data["file"].read(),
                connection=self.cleaned_data["connection"],
                is_dry_run=self.cleaned_data["is_dry_run"],
            )
        except ImportFileError as error:
            self.add_error("file", str(error))
            return None
