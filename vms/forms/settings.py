"""Patch settings of one machine or a selection: change, review, done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from patching.terms import AssessmentMode, PatchMode, PatchSettings, RebootSetting
from vms.choices import ASSESSMENT_MODES, REBOOT_SETTINGS, Role
from vms.forms.confirm import CountForm
from vms.selection import AskedSelection
from vms.services.settings import SettingsChange, SettingsOutcome, SettingsVerdict, judge_change, selected_vms

if TYPE_CHECKING:
    from django.contrib.auth.models import User


MAX_SELECTED = 1_000  # machines whose settings are changed at once, each with its row in the review
KEEP = ("", _("Keep as it is"))
CUSTOMER_MANAGED = "CustomerManaged"
ORCHESTRATIONS = [
    KEEP,
    (PatchMode.AUTOMATIC_BY_PLATFORM.value, _("Azure Managed - Safe Deployment")),
    (CUSTOMER_MANAGED, _("Customer Managed Schedules")),
    (PatchMode.AUTOMATIC_BY_OS.value, _("Windows Automatic Updates")),
    (PatchMode.MANUAL.value, _("Manual updates")),
]


def chosen(settings: PatchSettings) -> dict[str, str]:
    """The choice of each field of the form that these settings are."""
    is_customer_managed = (
        settings.bypass_platform_safety_checks and settings.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM
    )
    return {
        "patch_orchestration": CUSTOMER_MANAGED if is_customer_managed else settings.patch_mode.value,
        "assessment_mode": settings.assessment_mode.value,
        "hotpatch": "on" if settings.enable_hotpatching else "off",
        "reboot_setting": settings.reboot_setting.value,
    }


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


def _in_words(values: Sequence[str], choices: Mapping[str, Any]) -> str:
    counts = Counter(values).most_common()
    return ", ".join(str(choices[value]) + (f" ({count})" if len(counts) > 1 else "") for value, count in counts)


class SettingsWizard:
    """Change, review, done: for one machine or a selection. All state is in the form."""

    def __init__(self, data: QueryDict, *, user: User, is_sent: bool) -> None:
        """`is_sent`: whether the form was sent, or its page is asked for."""
        others = {"go", *SettingsForm.base_fields}
        self.asked = AskedSelection(data, user=user, role=Role.OWNER, others=others, most=MAX_SELECTED)
        self.vms, self.owned = selected_vms(user, self.asked.selection)
        self.form = SettingsForm(data if is_sent else None)
        self._say_what_is()
        self.go = data.get("go", "") if is_sent else ""
        self.outcomes: list[SettingsOutcome] = []
        self.is_done = False
        self.change = self.asked.change if self.go in {"review", "apply"} else None
        # All that match: what is meant was shown, and its number is typed.
        is_typed = self.asked.is_all and self.go == "apply"
        self.count_form = CountForm(data if is_typed else None, count=self.asked.selection.count)
        is_asked = bool(self.vms) and self.go in {"review", "apply"} and self.change is None
        if is_asked and self.form.is_valid():
            self.outcomes = judge_change(vms=self.vms, change=self.form.change, owned=self.owned)

    def _say_what_is(self) -> None:
        """Under each choice, what the machines shall have; of several, how many shall have what.

        A change starts from that. Where they report something else, that is said beside it.
        """
        choices = {name: dict(field.choices) for name, field in self.form.fields.items()}  # type: ignore[attr-defined]
        wanted, reported = ([chosen(each) for each in found] for found in self._settings)
        for name in choices:
            now = _in_words([values[name] for values in wanted], choices[name])
            if [values[name] for values in wanted] == [values[name] for values in reported]:
                words = _("Now: %(values)s.") % {"values": now}
            else:
                is_told = _in_words([values[name] for values in reported], choices[name])
                words = _("Wanted: %(wanted)s. Reported: %(reported)s.") % {"wanted": now, "reported": is_told}
            self.form.fields[name].help_text = f"{words} {self.form.fields[name].help_text}".strip()

    @property
    def _settings(self) -> tuple[list[PatchSettings], list[PatchSettings]]:
        """What the machines shall have, and what they report."""
        return [vm.desired for vm in self.vms], [vm.patch_settings for vm in self.vms]

    @property
    def differing(self) -> int:
        """How many of the machines report other settings than they shall have."""
        return sum(vm.desired_settings is not None for vm in self.vms)

    @property
    def are_reported(self) -> bool:
        """Whether all of them only report their settings: there is nothing to change from here."""
        return bool(self.vms) and all(vm.are_settings_reported for vm in self.vms)

    @property
    def step(self) -> str:
        """change, review or done."""
        if self.is_done:
            return "done"
        return "review" if self.outcomes else "change"

    @property
    def is_confirmed(self) -> bool:
        """Whether the change was reviewed and is to be made."""
        return (
            self.go == "apply" and bool(self.outcomes) and (not self.count_form.is_bound or self.count_form.is_valid())
        )

    def finish(self, outcomes: list[SettingsOutcome]) -> None:
        """Show what was done."""
        self.outcomes, self.is_done = outcomes, True

    @property
    def status(self) -> int:
        """422 when the selection or the form was refused, else 200."""
        if self.asked.problems and (self.form.is_bound or not self.asked.is_nothing_ticked):
            return 422
        is_refused = self.go in {"review", "apply"} and (self.form.errors or self.count_form.errors or self.change)
        return 422 if is_refused else 200

    @property
    def counts(self) -> dict[str, int]:
        """How many are changed, unchanged and refused."""
        return {verdict.value: sum(o.verdict is verdict for o in self.outcomes) for verdict in SettingsVerdict}
