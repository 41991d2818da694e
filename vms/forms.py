"""What people type about VMs, parsed and validated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.utils.translation import gettext_lazy as _

from patching.terms import AssessmentMode, PatchMode, RebootSetting
from vms.choices import ASSESSMENT_MODES, REBOOT_SETTINGS
from vms.models import Connection
from vms.services.imports import ImportFileError, ImportReport, check_size, import_vms
from vms.services.settings import SettingsChange, SettingsOutcome, Verdict, judge_change, selected_vms

if TYPE_CHECKING:
    from django.contrib.auth.models import User


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


KEEP = ("", _("Keep as it is"))
CUSTOMER_MANAGED = "CustomerManaged"
ORCHESTRATIONS = [
    KEEP,
    (PatchMode.AUTOMATIC_BY_PLATFORM.value, _("Azure Managed - Safe Deployment")),
    (CUSTOMER_MANAGED, _("Customer Managed Schedules")),
    (PatchMode.AUTOMATIC_BY_OS.value, _("Windows Automatic Updates")),
    (PatchMode.MANUAL.value, _("Manual updates")),
]


class SettingsForm(forms.Form):
    """What to change; what is kept stays as each machine has it."""

    patch_orchestration = forms.ChoiceField(
        label=_("Patch orchestration"),
        choices=ORCHESTRATIONS,
        required=False,
        help_text=_("Hotpatch needs “Azure Managed - Safe Deployment”."),
    )
    assessment_mode = forms.ChoiceField(
        label=_("Periodic assessment"), choices=[KEEP, *ASSESSMENT_MODES], required=False
    )
    hotpatch = forms.ChoiceField(
        label=_("Hotpatch"), choices=[KEEP, ("on", _("On")), ("off", _("Off"))], required=False
    )
    reboot_setting = forms.ChoiceField(label=_("Reboot setting"), choices=[KEEP, *REBOOT_SETTINGS], required=False)

    def clean(self) -> dict[str, object]:
        """Refuse a form that changes nothing."""
        if not self.errors and not self.change.values:
            self.add_error("patch_orchestration", _("Choose at least one setting to change."))
        return self.cleaned_data

    @property
    def change(self) -> SettingsChange:
        """The change that a valid form asks for. Every orchestration says whether schedules bypass the safety checks."""
        fields = self.cleaned_data
        orchestration = fields["patch_orchestration"]
        is_customer_managed = orchestration == CUSTOMER_MANAGED
        mode = PatchMode.AUTOMATIC_BY_PLATFORM if is_customer_managed else orchestration and PatchMode(orchestration)
        return SettingsChange(
            patch_mode=mode or None,
            bypass_platform_safety_checks=is_customer_managed if orchestration else None,
            assessment_mode=AssessmentMode(fields["assessment_mode"]) if fields["assessment_mode"] else None,
            enable_hotpatching=fields["hotpatch"] == "on" if fields["hotpatch"] else None,
            reboot_setting=RebootSetting(fields["reboot_setting"]) if fields["reboot_setting"] else None,
        )


MAX_SELECTED = 1_000


class SettingsWizard:
    """Change, review, done: for one machine or a selection. All state is in the form."""

    def __init__(self, data: Any, query: Any, *, user: User) -> None:
        """`data`: the POST, None for a GET; `query`: where the selection (`vm`, repeated) stands."""
        self.vm_ids = selected_ids(query.getlist("vm"))
        self.vms, self.owned = selected_vms(user, self.vm_ids)
        self.form = SettingsForm(data)
        self.go = data.get("go", "") if data else ""
        self.outcomes: list[SettingsOutcome] = []
        self.is_done = False
        if self.form.is_bound and self.go in {"review", "apply"} and self.form.is_valid():
            self.outcomes = judge_change(vms=self.vms, change=self.form.change, owned=self.owned)

    @property
    def step(self) -> str:
        """change, review or done."""
        if self.is_done:
            return "done"
        return "review" if self.outcomes else "change"

    @property
    def is_confirmed(self) -> bool:
        """Whether the change was reviewed and is to be made."""
        return self.go == "apply" and bool(self.outcomes)

    def finish(self, outcomes: list[SettingsOutcome]) -> None:
        """Show what was done."""
        self.outcomes, self.is_done = outcomes, True

    @property
    def status(self) -> int:
        """422 when the form was refused, else 200."""
        return 422 if self.form.is_bound and self.go in {"review", "apply"} and self.form.errors else 200

    @property
    def counts(self) -> dict[str, int]:
        """How many are changed, unchanged and refused."""
        return {verdict.value: sum(o.verdict is verdict for o in self.outcomes) for verdict in Verdict}


def selected_ids(texts: list[str]) -> list[int]:
    """The ids of a selection; what is no id selects nothing."""
    numbers = (int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19)
    return list(dict.fromkeys(numbers))[:MAX_SELECTED]
