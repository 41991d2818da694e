"""Files of the catalogue, and decisions about what an update is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from patching.terms import (
    ProductLine,
    ReleaseType,
)
from vms.choices import PRODUCT_LINES

MAX_CATALOGUE_BYTES = 5 * 1024 * 1024


class CatalogueImportForm(forms.Form):
    """A file of releases or of other updates, and whether to change anything."""

    file = forms.FileField(
        label=_("File"),
        help_text=_("A JSON list, or CSV in UTF-8 with the same names in its first line. Up to 5 MB."),
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ".json,.csv,application/json,text/csv"}),
    )
    is_dry_run = forms.BooleanField(
        label=_("Dry run"),
        required=False,
        initial=True,
        help_text=_("Report what would happen and change nothing."),
    )

    def clean_file(self) -> Any:
        """Refuse a file over the limit before it is read."""
        upload = self.cleaned_data["file"]
        if upload.size > MAX_CATALOGUE_BYTES:
            raise forms.ValidationError(_("The file is larger than 5 MB."))
        return upload


# What a person can say that an OS update is.
DECISIONS = [
    (ReleaseType.BASELINE.value, _("Baseline: install it; the machine reboots and hotpatches go on from it")),
    (ReleaseType.LCU.value, _("Monthly cumulative update: hold it back on machines that are hotpatched")),
    (ReleaseType.OOB_LCU.value, _("Out-of-band cumulative update: hold it back on machines that are hotpatched")),
    (ReleaseType.OOB_HOTPATCH.value, _("Out-of-band hotpatch: install it; nothing reboots")),
    (ReleaseType.HOTPATCH.value, _("Hotpatch: install it; nothing reboots")),
]


class DecisionForm(forms.Form):
    """One answer for all machines: what a KB is, or that a recorded type is right. The reason is kept with it."""

    line = forms.ChoiceField(choices=PRODUCT_LINES, required=False)
    kb = forms.CharField(max_length=12, required=False)
    release = forms.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    answer = forms.ChoiceField(choices=DECISIONS, required=False)
    reason = forms.CharField(label=_("Reason"), max_length=500, required=False)

    def __init__(self, data: Any = None, *, waiting: Collection[tuple[ProductLine, str]]) -> None:
        """`waiting`: the product lines and KBs that wait for an answer."""
        super().__init__(data)
        self._waiting = waiting

    def clean(self) -> dict[str, Any]:
        """An answer is to something that waits for one."""
        said = self.cleaned_data
        if self.errors or said["release"]:
            return said
        if (said["line"], said["kb"]) not in self._waiting:
            self.add_error(None, _("Nothing waits for this answer any more."))
        elif not said["answer"]:
            self.add_error(None, _("Choose what the update is."))
        return said
