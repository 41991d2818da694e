"""What an installation takes: the fields that every plan has, and KB articles as people type them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from patching.kb_numbers import MAX_KB_NUMBERS, KbNumbersError, KbProblem, parse_kb_numbers
from patching.selection import (
    validate_plan,
)
from patching.terms import (
    CRITICAL_AND_SECURITY,
    Classification,
    InstallationPlan,
    RebootSetting,
)
from updates.choices import CLASSIFICATION_CHOICES
from updates.texts import (
    PLAN_PROBLEMS,
)
from vms.choices import REBOOT_SETTINGS

MAX_KB_TEXT = 20_000


class KbNumbersField(forms.CharField):
    """KB articles as people type them; cleans to a tuple of digits."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_KB_TEXT, required=False, **kwargs)
        self.widget.attrs |= {"rows": 2, "spellcheck": "false", "autocomplete": "off"}

    def clean(self, value: Any) -> tuple[str, ...]:
        """Parse the list; the error names the first bad entry and how many more there are."""
        text = super().clean(" ".join(value) if isinstance(value, (list, tuple)) else value)
        try:
            return parse_kb_numbers(text)
        except KbNumbersError as error:
            raise forms.ValidationError(_kb_error_words(error)) from None


def _kb_error_words(error: KbNumbersError) -> str:
    if error.kind is KbProblem.TOO_MANY:
        return str(
            _("At most %(limit)s KB articles can be listed; “%(entry)s” is one too many.")
            % {"limit": MAX_KB_NUMBERS, "entry": error.first_bad}
        )
    first = str(_("“%(entry)s” is not a KB article; write 5034129 or KB5034129.") % {"entry": error.first_bad})
    return and_more(first, error.more)


def and_more(first: str, count: int) -> str:
    """What is wrong with the first entry, and how many more are wrong."""
    if not count:
        return first
    more = ngettext("%(count)s more entry is wrong.", "%(count)s more entries are wrong.", count)
    return f"{first} {more % {'count': count}}"


class PlanFields(forms.Form):
    """What every plan says, for one run or for each window. A form that has it adds how long a run may take."""

    classifications = forms.MultipleChoiceField(
        label=_("Update classifications"),
        choices=CLASSIFICATION_CHOICES,
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    kb_numbers_to_include = KbNumbersField(
        label=_("Include KB articles"),
        help_text=_(
            "In addition to the classifications, e.g. 5034129 or KB5034129, separated by commas, semicolons, spaces or lines."
        ),
    )
    kb_numbers_to_exclude = KbNumbersField(
        label=_("Exclude KB articles"), help_text=_("Never installed by this run, whatever else selects them.")
    )
    exclude_kbs_requiring_reboot = forms.BooleanField(label=_("Exclude updates that may need a reboot"), required=False)
    reboot_setting = forms.ChoiceField(
        label=_("Reboot option"),
        choices=REBOOT_SETTINGS,
        initial=RebootSetting.IF_REQUIRED.value,
        widget=forms.RadioSelect,
    )

    def plan_of(
        self, *, minutes: int, published_by: date | None = None, guard_overrides: tuple[str, ...] = ()
    ) -> InstallationPlan:
        """The plan that valid fields say, for a run of so many minutes."""
        fields = self.cleaned_data
        return InstallationPlan(
            classifications=frozenset(Classification(name) for name in fields["classifications"]),
            kb_numbers_to_include=fields["kb_numbers_to_include"],
            kb_numbers_to_exclude=fields["kb_numbers_to_exclude"],
            exclude_kbs_requiring_reboot=fields["exclude_kbs_requiring_reboot"],
            max_patch_publish_date=published_by,
            reboot_setting=RebootSetting(fields["reboot_setting"]),
            maximum_duration=timedelta(minutes=minutes),
            guard_overrides=guard_overrides,
        )

    def check_plan(self, plan: InstallationPlan) -> None:
        """Refuse a plan that could be carried out on no VM."""
        for problem in validate_plan(plan):
            self.add_error("classifications", PLAN_PROBLEMS[problem])  # type: ignore[arg-type]  # a lazy text


def fields_of_plan(plan: InstallationPlan) -> dict[str, Any]:
    """A plan as `PlanFields` shows it."""
    return {
        "classifications": [name.value for name in Classification if name in plan.classifications],
        "kb_numbers_to_include": ", ".join(plan.kb_numbers_to_include),
        "kb_numbers_to_exclude": ", ".join(plan.kb_numbers_to_exclude),
        "exclude_kbs_requiring_reboot": plan.exclude_kbs_requiring_reboot,
        "reboot_setting": plan.reboot_setting.value,
    }


def classifications_at_first() -> list[str]:
    """What a new plan begins with."""
    return [name.value for name in Classification if name in CRITICAL_AND_SECURITY]
