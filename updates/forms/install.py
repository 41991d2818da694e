"""The form of “Install updates now”, its steps, and the wizard on one VM."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from patching.kb_numbers import KbNumbersError, parse_kb_numbers
from patching.selection import (
    PatchVerdict,
    RunProspect,
    RunWork,
    Selection,
    SelectionReason,
    prospect,
    select,
    work_of,
)
from patching.terms import (
    DEFAULT_DURATION_MINUTES,
    MAX_DURATION_MINUTES,
    ON_TRACK_WORDS,
    InstallationPlan,
    InstallationState,
    RebootBehavior,
)
from ui.dates import DayField
from updates.choices import CLASSIFICATIONS, INSTALLATION_STATES
from updates.forms.plan import MAX_KB_TEXT, KbNumbersField, PlanFields, classifications_at_first, fields_of_plan
from updates.selectors.blade import VmPicture
from updates.services.operations import RequestOutcome
from updates.texts import (
    INSTALLATION_STATES_PLANNED,
    error_text,
)


class RequestForm(forms.Form):
    """A request that is one, however often it is sent: its id is made with the page."""

    request_id = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)


class InstallForm(RequestForm, PlanFields):
    """Everything an installation asks for. The wizard shows it in steps; the rest travels hidden."""

    max_patch_publish_date = DayField(
        label=_("Published on or before"),
        required=False,
        help_text=_("Leave out what was published after this day. Empty: no limit."),
    )
    maximum_minutes = forms.IntegerField(
        label=_("Maximum duration (in minutes)"),
        min_value=1,
        max_value=MAX_DURATION_MINUTES,
        initial=DEFAULT_DURATION_MINUTES,
        help_text=_(
            "1 to 235. Each update needs 10 minutes (a service pack 15), and 10 are always kept for the reboot. "
            "An update that has begun is never stopped."
        ),
    )
    guard_overrides = KbNumbersField(widget=forms.MultipleHiddenInput)
    field_order = (
        "request_id",
        "classifications",
        "kb_numbers_to_include",
        "kb_numbers_to_exclude",
        "max_patch_publish_date",
        "exclude_kbs_requiring_reboot",
        "reboot_setting",
        "maximum_minutes",
        "guard_overrides",
    )

    def __init__(self, data: Mapping[str, Any] | None = None, *, plan: InstallationPlan | None = None) -> None:
        """`plan`: what to begin with instead of Critical and Security updates. What the guard let pass needs its ticks anew."""
        initial: dict[str, Any] = {"classifications": classifications_at_first()}
        if plan is not None:
            initial |= fields_of_plan(plan)
            initial["max_patch_publish_date"] = plan.max_patch_publish_date
            initial["maximum_minutes"] = plan.maximum_duration // timedelta(minutes=1)
        super().__init__(data, initial=initial)

    def clean(self) -> dict[str, Any]:
        """Refuse a plan that could be carried out on no VM."""
        if not self.errors:
            self.check_plan(self.plan)
        return self.cleaned_data

    @property
    def plan(self) -> InstallationPlan:
        """The plan of a form whose fields are valid."""
        fields = self.cleaned_data
        return self.plan_of(
            minutes=fields["maximum_minutes"],
            published_by=fields["max_patch_publish_date"],
            guard_overrides=fields["guard_overrides"],
        )


STEPS = ("updates", "properties", "review")
FIELDS_OF_STEP = {
    "updates": (
        "classifications",
        "kb_numbers_to_include",
        "kb_numbers_to_exclude",
        "max_patch_publish_date",
        "exclude_kbs_requiring_reboot",
    ),
    "properties": ("reboot_setting", "maximum_minutes"),
    "review": ("guard_overrides",),
}
_NOT_SELECTED = dict(INSTALLATION_STATES)[InstallationState.NOT_SELECTED.value]
_EXCLUDED = dict(INSTALLATION_STATES)[InstallationState.EXCLUDED.value]
INSTALL = "install"
EXCLUDE_REBOOTS = "exclude-reboots"
MOST_KBS = 100  # that an address leaves out
WAVES = "waves"


# Buttons that change one field of the plan on the way to the review.
SWITCHES = {EXCLUDE_REBOOTS: ("exclude_kbs_requiring_reboot", "on"), WAVES: ("availability_first", "on")}


class PlanSteps:
    """The steps from a plan to its review. All state is in the form; going back loses nothing.

    The button `go` names the step to show next, or what to do. Going forward needs the fields so far to be valid; otherwise
    the step with the first error stays, with status 422.
    """

    steps: tuple[str, ...] = STEPS
    form: InstallForm
    sent: Mapping[str, Any] | None
    go: str
    current: str
    step: str
    is_held_back = False

    def begin(self, data: Mapping[str, Any] | None, *, plan: InstallationPlan | None = None, act: str) -> None:
        """Read what was sent (nothing: the first look) and settle the step. `act`: the `go` that does it all."""
        go = data.get("go", "") if data else ""
        if data and go in SWITCHES:
            data, go = _with(data, *SWITCHES[go]), "review"
        self.sent, self.go = data, go
        self.form = InstallForm(data, plan=plan)
        self.current = data["step"] if data and data.get("step") in self.steps else "updates"
        self.step = self._next_step("review" if go == act else go)

    def _next_step(self, wanted: str) -> str:
        """Where the reader comes to: never past a field that is wrong."""
        if wanted not in self.steps:
            wanted = self.current
        bad = next((step for step in self.steps[:-1] if self.has_errors(step)), None)
        if bad is None and self.form.is_bound and not self.form.is_valid():
            bad = "updates"  # what no step lets anybody type was tampered with: there is no plan to review
        if bad is not None and self.steps.index(wanted) > self.steps.index(bad):
            self.is_held_back = True
            return bad
        return wanted

    def has_errors(self, step: str) -> bool:
        """Whether a field of this step is wrong."""
        return any(name in self.form.errors for name in FIELDS_OF_STEP.get(step, ()))

    @property
    def visible(self) -> list[forms.BoundField]:
        """The fields of this step."""
        return [self.form[name] for name in FIELDS_OF_STEP.get(self.step, ()) if name != "guard_overrides"]

    @property
    def hidden(self) -> list[forms.BoundField]:
        """The fields of the other steps, which travel along."""
        shown = set(FIELDS_OF_STEP.get(self.step, ()))
        return [bound for bound in self.form if bound.name not in shown and bound.name != "guard_overrides"]

    @property
    def travelling_overrides(self) -> tuple[str, ...]:
        """The guard's ticks while they are not on the page."""
        if self.step == "review" or not (self.form.is_bound and self.form.is_valid()):
            return ()
        return tuple(self.form.cleaned_data.get("guard_overrides", ()))


def class_labels(plan: InstallationPlan | None) -> list[Any]:
    """The plan's classes in words, in their own order."""
    chosen = plan.classifications if plan else frozenset()
    return [label for value, label in CLASSIFICATIONS if value in chosen]


class InstallWizard(PlanSteps):
    """The steps of "Install updates now" on one VM."""

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        picture: VmPicture,
        asked: QueryDict | None = None,
    ) -> None:
        """`asked`: what the address begins with.

        KBs to `include`, alone; else `again`, an installation of this VM, whose plan to review `without` some KBs.
        """
        asked = QueryDict() if asked is None else asked
        again, included = asked.get("again", ""), asked.getlist("include")
        without = [kb for kb in asked.getlist("without") if kb.isdecimal()][:MOST_KBS]
        self.picture = picture
        self.refused: RequestOutcome | None = None
        plan = plan_of_kbs(included) if included else picture.plan_of(again, without=without)
        self.begin(data, plan=plan, act=INSTALL)
        if data is None and plan is not None and not included and InstallForm(as_data(self.form)).is_valid():
            self.step = "review"  # it was looked at before; what is wrong with it now is seen where it stands
        self.is_confirmed = self.go == INSTALL and self.form.is_valid() and self.is_runnable

    @property
    def status(self) -> int:
        """422 when a step was refused, 409 when the installation was, else 200."""
        if self.refused is not None:
            return 409
        return 422 if self.is_held_back else 200

    def refuse(self, outcome: RequestOutcome) -> None:
        """Stay on the review and say why nothing was started."""
        self.refused = outcome

    @property
    def refusal(self) -> Any:
        """Title and advice of the refusal."""
        return error_text(self.refused.code) if self.refused else None

    # --- what the plan would do

    @cached_property
    def plan(self) -> InstallationPlan | None:
        """The plan so far; None while a field is wrong."""
        form = self.form
        if not form.is_bound:
            form = InstallForm(as_data(form))
        if not form.is_valid():
            return None
        plan = form.plan
        return replace(plan, kb_numbers_to_exclude=(*plan.kb_numbers_to_exclude, *self.picture.held_kbs))

    @cached_property
    def selection(self) -> Selection | None:
        """One verdict per available patch."""
        if self.plan is None:
            return None
        return select(self.picture.patches, self.plan, guard=self.picture.guard)

    @cached_property
    def prospect(self) -> RunProspect | None:
        """What to expect of the run."""
        if self.plan is None or self.selection is None:
            return None
        return prospect(self.selection, self.plan, is_reboot_pending=self.picture.vm.is_reboot_pending)

    @property
    def work(self) -> RunWork:
        """What the run would do."""
        if self.plan is None or self.selection is None:
            return RunWork.NOTHING
        return work_of(self.selection, self.plan, is_reboot_pending=self.picture.vm.is_reboot_pending)

    @property
    def is_runnable(self) -> bool:
        """Whether the run would do anything."""
        return self.work is not RunWork.NOTHING

    @property
    def guarded(self) -> list[PatchVerdict]:
        """What the guard leaves out or was allowed to pass: each needs its own tick."""
        if self.selection is None:
            return []
        reasons = {SelectionReason.GUARD, SelectionReason.GUARD_OVERRIDDEN}
        return [verdict for verdict in self.selection.verdicts if verdict.reason in reasons]

    @property
    def rebooting_on_track(self) -> list[PatchVerdict]:
        """What may reboot a machine that is on track, where a hotpatch alone would not."""
        if self.selection is None or self.picture.track.track not in ON_TRACK_WORDS:
            return []
        return [
            verdict
            for verdict in self.selection.selected
            if verdict.patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS
        ]

    @property
    def totals(self) -> list[tuple[Any, int]]:
        """How many available patches get each verdict, in words."""
        verdicts = self.selection.verdicts if self.selection else ()
        counted = (
            (INSTALLATION_STATES_PLANNED, InstallationState.PENDING),
            (_NOT_SELECTED, InstallationState.NOT_SELECTED),
            (_EXCLUDED, InstallationState.EXCLUDED),
        )
        return [(label, sum(verdict.state is state for verdict in verdicts)) for label, state in counted]

    @property
    def class_labels(self) -> list[Any]:
        """The plan's classes in words."""
        return class_labels(self.plan)

    @property
    def available_kbs(self) -> list[str]:
        """The KB articles that are available on the machine: what the lists can name."""
        return [row.patch.kb_number for row in self.picture.available if row.patch.kb_number]


def _with(data: Mapping[str, Any], name: str, value: str) -> Any:
    copy = data.copy()  # type: ignore[attr-defined]  # a QueryDict
    copy[name] = value
    return copy


def plan_of_kbs(kb_numbers: Sequence[str]) -> InstallationPlan | None:
    """The plan that installs these KBs and nothing else; None where none of them can be read."""
    try:
        found = parse_kb_numbers(" ".join(kb_numbers)[:MAX_KB_TEXT])
    except KbNumbersError:
        return None
    return InstallationPlan(kb_numbers_to_include=found) if found else None


def as_data(form: forms.Form) -> dict[str, Any]:
    """What a browser would send for the untouched form."""
    return {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
