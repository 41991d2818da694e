"""What people type about an installation, parsed and validated; and the wizard's steps."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from patching.kb_numbers import MAX_KB_NUMBERS, KbNumbersError, KbProblem, parse_kb_numbers
from patching.recurrence import (
    BlackoutError,
    Recurrence,
    RecurrenceError,
    check_possible,
    parse_blackouts,
    parse_recurrence,
    windows_name,
    windows_zones,
)
from patching.rollback import RollbackOrder
from patching.selection import (
    PatchVerdict,
    RunProspect,
    RunWork,
    Selection,
    SelectionReason,
    prospect,
    select,
    validate_plan,
    work_of,
)
from patching.terms import (
    CRITICAL_AND_SECURITY,
    DEFAULT_DURATION_MINUTES,
    MAX_DURATION_MINUTES,
    ON_TRACK_WORDS,
    Classification,
    InstallationPlan,
    InstallationState,
    OperationKind,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    ReleaseType,
)
from ui.dates import DayField
from updates.choices import CLASSIFICATION_CHOICES, CLASSIFICATIONS, INSTALLATION_STATES
from updates.models import MaintenanceConfiguration, RolloutSource
from updates.plans import plan_from_json, plan_to_json
from updates.selectors.automation import SCOPE_NAMES, scope_filter, unknown_in_scope
from updates.selectors.blade import VmPicture
from updates.selectors.decisions import load_news
from updates.selectors.rollback import rollback_orders
from updates.services.catalogue import (
    CatalogueFileError,
    CatalogueReport,
    DecisionError,
    confirm_release_type,
    decide_release,
    import_catalogue,
)
from updates.services.operations import RequestOutcome
from updates.services.rollback import request_rollback
from updates.services.rollouts import RolloutPlan
from updates.texts import (
    BLACKOUT_PROBLEMS,
    DECISION_PROBLEMS,
    INSTALLATION_STATES_PLANNED,
    PLAN_PROBLEMS,
    RECURRENCE_PROBLEMS,
    ErrorText,
    Text,
    error_text,
)
from vms.choices import PRODUCT_LINES, REBOOT_SETTINGS, Role, SelectionProblem
from vms.filters import Problem, values_of
from vms.forms.confirm import CountForm, number_in
from vms.models import Subscription, VirtualMachine
from vms.selection import NOTHING, AskedSelection, VmSelection
from vms.selectors import shortest_names, vms_by_name
from vms.tags import TagValue

# 500 entries of "KB5034129, " and some room; more is no list of KB articles.
MAX_KB_TEXT = 20_000
MAX_CATALOGUE_BYTES = 5 * 1024 * 1024


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
            raise forms.ValidationError(_words(error)) from None


def _words(error: KbNumbersError) -> str:
    if error.kind is KbProblem.TOO_MANY:
        return str(
            _("At most %(limit)s KB articles can be listed; “%(entry)s” is one too many.")
            % {"limit": MAX_KB_NUMBERS, "entry": error.first_bad}
        )
    first = str(_("“%(entry)s” is not a KB article; write 5034129 or KB5034129.") % {"entry": error.first_bad})
    return _and_more(first, error.more)


def _and_more(first: str, count: int) -> str:
    """What is wrong with the first entry, and how many more are wrong."""
    if not count:
        return first
    more = ngettext("%(count)s more entry is wrong.", "%(count)s more entries are wrong.", count)
    return f"{first} {more % {'count': count}}"


def _plan_as_initial(plan: InstallationPlan) -> dict[str, Any]:
    """A plan as the form shows it. What the guard let pass then needs its ticks anew."""
    return {
        "classifications": [name.value for name in Classification if name in plan.classifications],
        "kb_numbers_to_include": ", ".join(plan.kb_numbers_to_include),
        "kb_numbers_to_exclude": ", ".join(plan.kb_numbers_to_exclude),
        "max_patch_publish_date": plan.max_patch_publish_date,
        "exclude_kbs_requiring_reboot": plan.exclude_kbs_requiring_reboot,
        "reboot_setting": plan.reboot_setting.value,
        "maximum_minutes": int(plan.maximum_duration.total_seconds() // 60),
    }


class InstallForm(forms.Form):
    """Everything an installation asks for. The wizard shows it in steps; the rest travels hidden."""

    request_id = forms.UUIDField(widget=forms.HiddenInput)
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
    max_patch_publish_date = DayField(
        label=_("Published on or before"),
        required=False,
        help_text=_("Leave out what was published after this day. Empty: no limit."),
    )
    exclude_kbs_requiring_reboot = forms.BooleanField(label=_("Exclude updates that may need a reboot"), required=False)
    reboot_setting = forms.ChoiceField(
        label=_("Reboot option"),
        choices=REBOOT_SETTINGS,
        initial=RebootSetting.IF_REQUIRED.value,
        widget=forms.RadioSelect,
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

    def __init__(self, data: Mapping[str, Any] | None = None, *, plan: InstallationPlan | None = None) -> None:
        """`plan`: what to begin with instead of Critical and Security updates."""
        initial = {
            "request_id": uuid.uuid4(),
            "classifications": [name.value for name in Classification if name in CRITICAL_AND_SECURITY],
        }
        super().__init__(data, initial=initial | (_plan_as_initial(plan) if plan else {}))

    def clean(self) -> dict[str, Any]:
        """Refuse a plan that could be carried out on no VM."""
        if not self.errors:
            for problem in validate_plan(self.plan):
                self.add_error("classifications", PLAN_PROBLEMS[problem])  # type: ignore[arg-type]  # a lazy text
        return self.cleaned_data

    @property
    def plan(self) -> InstallationPlan:
        """The plan of a form whose fields are valid."""
        fields = self.cleaned_data
        return InstallationPlan(
            classifications=frozenset(Classification(name) for name in fields["classifications"]),
            kb_numbers_to_include=fields["kb_numbers_to_include"],
            kb_numbers_to_exclude=fields["kb_numbers_to_exclude"],
            exclude_kbs_requiring_reboot=fields["exclude_kbs_requiring_reboot"],
            max_patch_publish_date=fields["max_patch_publish_date"],
            reboot_setting=RebootSetting(fields["reboot_setting"]),
            maximum_duration=timedelta(minutes=fields["maximum_minutes"]),
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


class InstallWizard:
    """The steps of "Install updates now" on one VM. All state is in the form; going back loses nothing.

    The button `go` names the step to show next, or `install`. Going forward needs the fields so far to be valid;
    otherwise the step with the first error stays, with status 422.
    """

    def __init__(self, data: Mapping[str, Any] | None, *, picture: VmPicture, again: str = "") -> None:
        """`again`: the id of an installation of this VM whose plan to begin with."""
        go = data.get("go", "") if data else ""
        if data and go == EXCLUDE_REBOOTS:
            data = _with(data, "exclude_kbs_requiring_reboot", "on")
            go = "review"
        self.picture = picture
        self.form = InstallForm(data, plan=picture.plan_of(again))
        self.current = data["step"] if data and data.get("step") in STEPS else "updates"
        self.refused: RequestOutcome | None = None
        self.is_held_back = False
        self.step = self._next_step(go)
        self.is_confirmed = go == INSTALL and self.form.is_valid() and self.is_runnable

    def _next_step(self, go: str) -> str:
        """Where the reader comes to: never past a field that is wrong."""
        wanted = "review" if go == INSTALL else go
        if wanted not in STEPS:
            wanted = self.current
        bad = next((step for step in STEPS[:-1] if self._has_errors(step)), None)
        if bad is None and self.form.is_bound and not self.form.is_valid():
            bad = STEPS[0]  # what no step lets anybody type was tampered with: there is no plan to review
        if bad is not None and STEPS.index(wanted) > STEPS.index(bad):
            self.is_held_back = True
            return bad
        return wanted

    def _has_errors(self, step: str) -> bool:
        return any(name in self.form.errors for name in FIELDS_OF_STEP[step])

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

    @property
    def visible(self) -> list[forms.BoundField]:
        """The fields of this step."""
        return [self.form[name] for name in FIELDS_OF_STEP[self.step] if name != "guard_overrides"]

    @property
    def hidden(self) -> list[forms.BoundField]:
        """The fields of the other steps, which travel along."""
        shown = set(FIELDS_OF_STEP[self.step])
        return [bound for bound in self.form if bound.name not in shown and bound.name != "guard_overrides"]

    @property
    def travelling_overrides(self) -> tuple[str, ...]:
        """The guard's ticks while they are not on the page."""
        return () if self.step == "review" else self._overrides

    @property
    def _overrides(self) -> tuple[str, ...]:
        return (
            tuple(self.form.cleaned_data.get("guard_overrides", ()))
            if self.form.is_bound and self.form.is_valid()
            else ()
        )

    # --- what the plan would do

    @cached_property
    def plan(self) -> InstallationPlan | None:
        """The plan so far; None while a field is wrong."""
        form = self.form
        if not form.is_bound:
            form = InstallForm(_as_data(form))
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
        """The plan's classes in words, in their own order."""
        chosen = self.plan.classifications if self.plan else frozenset()
        return [label for value, label in CLASSIFICATIONS if value in chosen]

    @property
    def available_kbs(self) -> list[str]:
        """The KB articles that are available on the machine: what the lists can name."""
        return [row.patch.kb_number for row in self.picture.available if row.patch.kb_number]


def _with(data: Mapping[str, Any], name: str, value: str) -> Any:
    copy = data.copy()  # type: ignore[attr-defined]  # a QueryDict
    copy[name] = value
    return copy


def _as_data(form: InstallForm) -> dict[str, Any]:
    """What a browser would send for the untouched form."""
    return {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}


class RemoveForm(forms.Form):
    """Removing a record takes its name, typed: a second thought for what cannot be undone."""

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

    def run(self) -> CatalogueReport | None:
        """Import what the valid form holds. None: the file cannot be used, and the form's errors say why."""
        upload = self.cleaned_data["file"]
        try:
            return import_catalogue(
                data=upload.read(),
                file_name=upload.name or "",
                is_dry_run=self.cleaned_data["is_dry_run"],
                now=timezone.now(),
            )
        except CatalogueFileError as error:
            self.add_error("file", str(error))
            return None


def whole_number(text: str) -> int:
    """A number in an address; anything else is 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


class RolloutForm(forms.Form):
    """In which order machines go, and what stops them."""

    availability_first = forms.BooleanField(
        label=_("Availability first: in waves, never both of a pair of regions, one zone at a time"), required=False
    )
    rings = forms.CharField(
        label=_("Rings"),
        required=False,
        max_length=500,
        help_text=_("Values of the tag below, in their order, e.g. pilot, broad. Machines with none of them go last."),
    )
    ring_tag = forms.CharField(label=_("Tag of the rings"), required=False, max_length=100, initial="ring")
    ring_hours = forms.IntegerField(
        label=_("Wait between rings (in hours)"), required=False, min_value=0, max_value=720, initial=24
    )
    soak_minutes = forms.IntegerField(
        label=_("Wait between waves (in minutes)"), required=False, min_value=0, max_value=1_440, initial=0
    )
    most_failures = forms.IntegerField(
        label=_("Pause if failures exceed"), required=False, min_value=0, max_value=10_000, initial=2
    )
    most_percent = forms.IntegerField(
        label=_("and failure rate above (%)"), required=False, min_value=0, max_value=100, initial=5
    )

    confirm = forms.CharField(label=_("Number of machines"), max_length=20)

    def __init__(self, data: Any = None, *, going_back: int | None = None) -> None:
        """`going_back`: how many machines a rollback means; None: it is an installation."""
        super().__init__(data)
        self.going_back = going_back
        # A rollback stops at the first failure, follows availability always, and is confirmed by a number.
        kept = self.fields.keys() - {"confirm"} if going_back is None else {"soak_minutes", "confirm"}
        self.fields = {name: field for name, field in self.fields.items() if name in kept}
        if going_back is not None:
            words = _("Type %(count)s to confirm that so many machines are rolled back.")
            self.fields["confirm"].help_text = words % {"count": going_back}

    def clean_confirm(self) -> str:
        """The number of machines that have a way back."""
        typed = str(self.cleaned_data["confirm"])
        if not self.going_back or number_in(typed) != str(self.going_back):
            raise forms.ValidationError(_("This is not the number of the machines."))
        return typed

    def clean_rings(self) -> tuple[str, ...]:
        """The names in their order, each once."""
        text = str(self.cleaned_data["rings"]).replace("、", ",").replace("，", ",")
        names = [name.strip() for name in text.split(",") if name.strip()]
        if len({name.casefold() for name in names}) < len(names):
            raise forms.ValidationError(_("A ring is named once."))
        return tuple(names)

    def clean(self) -> dict[str, Any]:
        """Rings need the tag that they are values of."""
        if self.cleaned_data.get("rings") and not self.cleaned_data.get("ring_tag"):
            self.add_error("ring_tag", _("Say which tag has these values."))
        return self.cleaned_data

    def number(self, name: str, default: int) -> int:
        """What a number field says; `default` where it is empty or not asked for."""
        found = self.cleaned_data.get(name)
        return default if found is None else int(found)


BULK_KINDS: dict[OperationKind, Text] = {
    OperationKind.ASSESSMENT: _("Assess now"),
    OperationKind.INSTALLATION: _("Install updates now"),
    OperationKind.ROLLBACK: _("Roll back"),
}
MAX_ROLLED_BACK = 1_000  # each is judged by itself before anything is asked for


@dataclass(frozen=True, slots=True)
class RollbackGroup:
    """Machines that go the same way back, or that have none for the same reason."""

    order: RollbackOrder | None
    refusal: ErrorText | None
    count: int


class BulkWizard:
    """One page that asks for the same on many VMs: those that were ticked, or all that match the list's filters.

    Nothing ticked is no machine; all that match are asked for by `all=1` and confirmed by their number.
    """

    def __init__(self, data: QueryDict, *, user: User) -> None:
        kinds = set(data.getlist("kind"))
        self.kind = OperationKind(kinds.pop()) if len(kinds) == 1 and kinds <= set(BULK_KINDS) else None
        self.asked_kinds = data.getlist("kind")
        others = {"kind", "go", *InstallForm.base_fields, *RolloutForm.base_fields}
        several = {"kind", "classifications", "guard_overrides"}
        most = MAX_ROLLED_BACK if self.is_rollback else None
        self.asked = AskedSelection(data, user=user, role=Role.OPERATOR, others=others, several=several, most=most)
        is_sent = data.get("go") == "start"
        self.is_sent = is_sent
        self.form = InstallForm(data if is_sent else None)
        if not self.is_installation:
            for name in [name for name in self.form.fields if name != "request_id"]:
                del self.form.fields[name]
            self.form.clean = lambda: self.form.cleaned_data  # type: ignore[method-assign]  # no plan to judge
        self.vms = self.asked.selection.vms
        self.count = self.asked.selection.count
        self.change = self.asked.change if is_sent else None
        going_back = self.going_back if self.is_rollback else None
        self.rollout_form = RolloutForm(data if is_sent else None, going_back=going_back)
        # A rollback is confirmed by the number of those that go back.
        is_counted = self.asked.is_all and not self.is_rollback
        self.count_form = CountForm(data if is_sent and is_counted else None, count=self.count) if is_counted else None
        if is_sent and self.is_installation and self.rollout_form.is_valid():
            self._check_rings()
        # An assessment asks for none of it.
        is_ordered = self.kind is OperationKind.ASSESSMENT or self.rollout_form.is_valid()
        is_counted_right = self.count_form is None or self.count_form.is_valid()
        self.is_confirmed = (
            is_sent
            and self.kind is not None
            and self.form.is_valid()
            and is_ordered
            and is_counted_right
            and self.change is None
            and self.count > 0
        )

    def _check_rings(self) -> None:
        """A ring that no machine is in is a slip of the pen: its machines would all go last, at once."""
        fields = self.rollout_form.cleaned_data
        if not fields["rings"]:
            return
        values = self.vms.annotate(ring_value=TagValue(fields["ring_tag"])).values_list("ring_value", flat=True)
        known = {str(text).casefold() for text in values.distinct()}
        for name in fields["rings"]:
            if name.casefold() not in known:
                words = _("None of these machines has the tag %(tag)s with the value %(value)s.")
                self.rollout_form.add_error("rings", words % {"tag": fields["ring_tag"], "value": name})

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """What can be asked of the machines: the address that asks for it, and its words."""
        asked = [("vm", str(pk)) for pk in self.asked.selection.ids] if not self.asked.is_all else self.asked.fields
        return [
            (urlencode([("kind", kind), *((name, value) for name, value in asked if name != "shown")]), str(words))
            for kind, words in BULK_KINDS.items()
        ]

    @property
    def bad_kind(self) -> str:
        """What was asked for and is nothing that many machines can be asked."""
        return ", ".join(self.asked_kinds)[:60] if self.kind is None else ""

    @property
    def chosen_by(self) -> dict[str, Any]:
        """How the machines were chosen, for people to read afterwards."""
        return {"filters": self.asked.filters} if self.asked.is_all else {"ticked": self.count}

    @property
    def is_installation(self) -> bool:
        """Whether it installs."""
        return self.kind is OperationKind.INSTALLATION

    @property
    def is_rollback(self) -> bool:
        """Whether it takes machines back."""
        return self.kind is OperationKind.ROLLBACK

    @cached_property
    def way_back(self) -> tuple[RollbackGroup, ...]:
        """What would become of the machines, the largest group first."""
        if not self.is_rollback or not self.count:
            return ()
        plans = rollback_orders(self.asked.selection.ids, now=timezone.now())
        groups = [
            RollbackGroup(plan, None, count)
            if isinstance(plan, RollbackOrder)
            else RollbackGroup(None, error_text(plan.value), count)
            for plan, count in Counter(plans.values()).most_common()
        ]
        return tuple(sorted(groups, key=lambda group: group.order is None))

    @property
    def going_back(self) -> int:
        """How many machines have a way back."""
        return sum(group.count for group in self.way_back if group.order)

    @property
    def request_id(self) -> uuid.UUID:
        """The id of the request: of a form that was sent twice, the same."""
        found: uuid.UUID = self.form.cleaned_data["request_id"]
        return found

    @property
    def plan(self) -> InstallationPlan | None:
        """What to install."""
        return self.form.plan if self.is_installation else None

    @property
    def rollout(self) -> RolloutPlan | None:
        """The rollout that a confirmed form asks for; None: everything at once."""
        number = self.rollout_form.number
        if self.is_rollback:
            return RolloutPlan(
                name="",
                source=RolloutSource.ON_DEMAND,
                plan=None,
                most_failures=0,
                most_percent=0,
                soak_minutes=number("soak_minutes", 0),
            )
        fields = self.rollout_form.cleaned_data if self.is_installation else {}
        if not (fields.get("availability_first") or fields.get("rings")):
            return None
        return RolloutPlan(
            name="",
            source=RolloutSource.ON_DEMAND,
            plan=self.plan,
            is_availability_first=fields["availability_first"],
            ring_tag=fields["ring_tag"],
            rings=fields["rings"],
            ring_soak_minutes=60 * number("ring_hours", 0),
            soak_minutes=number("soak_minutes", 0),
            most_failures=number("most_failures", 2),
            most_percent=number("most_percent", 5),
        )

    @property
    def pending_reboots(self) -> int:
        """How many of the machines wait for a reboot: a run may do nothing else on them."""
        return self.asked.selection.vms.filter(is_reboot_pending=True).count() if self.is_installation else 0

    @property
    def visible(self) -> list[forms.BoundField]:
        """The fields to show."""
        return [bound for bound in self.form if bound.name not in {"request_id", "guard_overrides"}]

    @property
    def status(self) -> int:
        """422 for a form that was sent and is wrong, and for a selection or kind that cannot be read."""
        is_wrong = bool(self.asked.problems) and not self.asked.is_nothing_ticked and not self.asked.is_role_missing
        return 422 if (self.is_sent and not self.is_confirmed) or is_wrong or self.bad_kind else 200


_MAINTENANCE_FIELDS = (
    "name",
    "starts_on",
    "starts_at",
    "time_zone",
    "duration_minutes",
    "recur_every",
    "expires_on",
    "blackouts",
    "is_availability_first",
    "catch_up_hours",
)


def _as_initial(row: MaintenanceConfiguration) -> dict[str, Any]:
    """What the form shows of a configuration that is there."""
    plan = plan_from_json(row.plan)
    static = shortest_names(list(row.vms.order_by().values_list("pk", flat=True)))
    return {
        **{name: getattr(row, name) for name in _MAINTENANCE_FIELDS},
        **row.scope,
        "blackouts": "\n".join(f"{first} to {last}" for first, last in row.blackouts),
        "machines": "\n".join(static),
        "classifications": [name.value for name in plan.classifications],
        "kb_numbers_to_include": ", ".join(plan.kb_numbers_to_include),
        "kb_numbers_to_exclude": ", ".join(plan.kb_numbers_to_exclude),
        "exclude_kbs_requiring_reboot": plan.exclude_kbs_requiring_reboot,
        "reboot_setting": plan.reboot_setting.value,
    }


SCHEDULE_FIELDS = (
    "name",
    "time_zone",
    "starts_on",
    "starts_at",
    "recur_every",
    "duration_minutes",
    "expires_on",
    "catch_up_hours",
    "blackouts",
)
MEMBER_FIELDS = (
    "machines",
    "subscription",
    "resource_group",
    "location",
    "image_sku",
    "tag_name",
    "tag_value",
    "is_availability_first",
)


def recurrence_error_words(error: RecurrenceError) -> str:
    """What is wrong with a recurrence, in words."""
    return str(RECURRENCE_PROBLEMS[error.problem]) % {"entry": error.entry}


class MaintenanceForm(InstallForm):
    """When a window opens, what is installed in it, and on which machines."""

    name = forms.CharField(label=_("Name"), max_length=100)
    starts_on = DayField(label=_("First day"))
    starts_at = forms.TimeField(label=_("Opens at"), widget=forms.TimeInput(attrs={"type": "time"}, format="%H:%M"))
    time_zone = forms.ChoiceField(label=_("Time zone"), choices=[(name, name) for name in windows_zones()])
    duration_minutes = forms.IntegerField(
        label=_("Duration (in minutes)"), min_value=90, max_value=235, initial=120, help_text=_("90 to 235.")
    )
    recur_every = forms.CharField(
        label=_("Repeats"),
        max_length=100,
        initial="Month Second Tuesday Offset4",
        help_text=_("As Azure writes it: Day, 3Days, Week Saturday,Sunday, Month day15, Month Second Tuesday Offset4."),
    )
    expires_on = DayField(label=_("Last day"), required=False)
    blackouts = forms.CharField(
        label=_("Blackout periods"),
        required=False,
        max_length=2_000,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_(
            "One per line, e.g. 2026-12-24 to 2027-01-06: days of the time zone above. Nothing starts in them, and what would "
            "run into them is cut short."
        ),
    )
    is_availability_first = forms.BooleanField(
        label=_("Availability first: in waves, never both of a pair of regions, one zone at a time"), required=False
    )
    catch_up_hours = forms.IntegerField(
        label=_("Catch up (in hours)"),
        min_value=0,
        max_value=168,
        initial=0,
        required=False,
        help_text=_(
            "A machine that was off is updated if it runs within so many hours after the window. 0: it waits for the next window."
        ),
    )
    machines = forms.CharField(
        label=_("Machines"),
        required=False,
        max_length=1_000_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_(
            "One per line: a name, resource group/name, subscription/resource group/name, or the resource ID. Besides "
            "these, it means all that the fields below describe."
        ),
    )
    subscription = forms.ModelChoiceField(
        label=_("Subscription"), queryset=Subscription.objects.order_by("name"), required=False, empty_label=_("All")
    )
    resource_group = forms.CharField(label=_("Resource group"), max_length=90, required=False)
    location = forms.CharField(label=_("Location"), max_length=60, required=False)
    image_sku = forms.CharField(label=_("SKU"), max_length=100, required=False)
    tag_name = forms.CharField(label=_("Tag"), max_length=100, required=False)
    tag_value = forms.CharField(label=_("Value of the tag"), max_length=200, required=False)
    field_order = (*SCHEDULE_FIELDS, *MEMBER_FIELDS)

    def __init__(
        self, data: Mapping[str, Any] | None = None, *, instance: MaintenanceConfiguration | None = None
    ) -> None:
        super().__init__(data)
        self.instance = instance
        self.recurrence: Recurrence | None = None
        self.selection = NOTHING
        for name in ("request_id", "maximum_minutes", "guard_overrides", "max_patch_publish_date"):
            del self.fields[name]
        if instance is not None:
            self.initial = {**self.initial, **_as_initial(instance)}
        else:
            self.initial["time_zone"] = windows_name(timezone.get_current_timezone_name())

    @property
    def sections(self) -> list[tuple[Text, list[forms.BoundField]]]:
        """The fields under the question they answer: when, on which machines, what."""
        plan_fields = tuple(name for name in self.fields if name not in self.field_order)
        titles = ((_("Schedule"), SCHEDULE_FIELDS), (_("Scope"), MEMBER_FIELDS), (_("Updates"), plan_fields))
        return [(title, [self[name] for name in names]) for title, names in titles]

    def clean_name(self) -> str:
        """A name is there once."""
        name = str(self.cleaned_data["name"])
        others = MaintenanceConfiguration.objects.filter(name__iexact=name)
        if (others.exclude(pk=self.instance.pk) if self.instance else others).exists():
            raise forms.ValidationError(_("There is a maintenance configuration of this name."))
        return name

    def clean_catch_up_hours(self) -> int:
        """Empty is 0."""
        return int(self.cleaned_data["catch_up_hours"] or 0)

    def clean_machines(self) -> str:
        """Every line names exactly one machine; the first that does not is named, and how many more there are."""
        text = str(self.cleaned_data["machines"])
        wanted = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
        found = vms_by_name(wanted)
        wrong = [line for line in wanted if len(found[line]) != 1]
        if wrong:
            words = (
                _("Several machines are called “%(name)s”; write subscription/resource group/name, or the resource ID.")
                if found[wrong[0]]
                else _("There is no machine “%(name)s”.")
            )
            raise forms.ValidationError(_and_more(str(words % {"name": wrong[0]}), len(wrong) - 1))
        self.selection = VmSelection.of(found[line][0] for line in wanted)
        return text

    def clean_recur_every(self) -> str:
        """The recurrence as Azure writes it."""
        try:
            self.recurrence = parse_recurrence(self.cleaned_data["recur_every"])
        except RecurrenceError as error:
            raise forms.ValidationError(recurrence_error_words(error)) from None
        return str(self.recurrence)

    def clean_blackouts(self) -> list[list[str]]:
        """First and last day of each period."""
        try:
            found = parse_blackouts(self.cleaned_data["blackouts"])
        except BlackoutError as error:
            words = str(BLACKOUT_PROBLEMS[error.problem]) % {"entry": error.entry[:60]}
            raise forms.ValidationError(words) from None
        return [[period.first.isoformat(), period.last.isoformat()] for period in found]

    def _check_days(self) -> None:
        """The last day is not before the first, and the recurrence has a day from the first on."""
        first, last = (self.cleaned_data.get(name) for name in ("starts_on", "expires_on"))
        if first and last and last < first:
            self.add_error("expires_on", _("The last day is before the first day."))
        if first and self.recurrence is not None:
            try:
                check_possible(self.recurrence, first)
            except RecurrenceError as error:
                self.add_error("recur_every", recurrence_error_words(error))

    def clean(self) -> dict[str, Any]:
        """A window needs something to install and somebody to install it on."""
        fields = self.cleaned_data
        fields.update(request_id=None, maximum_minutes=fields.get("duration_minutes"), guard_overrides=())
        fields["max_patch_publish_date"] = None
        super().clean()
        self._check_days()
        for name in sorted(set(self.data) - set(self.fields) - {"go", "csrfmiddlewaretoken"}) if self.is_bound else ():
            self.add_error(None, Problem(SelectionProblem.UNKNOWN_NAME, name).words)
        for name in SCOPE_NAMES:
            if len(set(values := values_of(self.data, name))) > 1:
                self.add_error(None, Problem(SelectionProblem.GIVEN_TWICE, name, ", ".join(values)).words)
        if fields.get("tag_value") and not fields.get("tag_name"):
            self.add_error("tag_name", _("Say which tag has this value."))
        if not self.errors:
            for name in unknown_in_scope(self.scope):
                self.add_error(
                    name, _("No machine has “%(value)s” here. Correct it, or leave it empty.") % {"value": fields[name]}
                )
        if not self.errors and not self.selection.count and scope_filter(self.scope) is None:
            self.add_error(
                "machines", _("Say which machines: by name, subscription, resource group, location, SKU or tag.")
            )
        return fields

    @property
    def scope(self) -> dict[str, Any]:
        """The dynamic scope."""
        fields = self.cleaned_data
        found = {name: str(fields[name]) for name in SCOPE_NAMES if fields.get(name) and name != "subscription"}
        return found | ({"subscription": fields["subscription"].pk} if fields.get("subscription") else {})

    @property
    def configuration(self) -> MaintenanceConfiguration:
        """What a valid form asks for, not yet saved."""
        fields = self.cleaned_data
        row = copy(self.instance) if self.instance else MaintenanceConfiguration()
        for name in _MAINTENANCE_FIELDS:
            setattr(row, name, fields[name])
        row.plan, row.scope = plan_to_json(self.plan), self.scope
        return row


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

    def decide(self, user: User, *, now: datetime) -> bool:
        """Record the decision of a valid form; False: the form says why not."""
        if not self.is_valid():
            return False
        said = self.cleaned_data
        by, reason = user.get_username(), said["reason"]
        try:
            if said["release"]:
                confirm_release_type(release_id=said["release"], confirmed_by=by, reason=reason, now=now)
            elif (said["line"], said["kb"]) not in {(w.line, w.kb_number) for w in load_news(user).waiting}:
                self.add_error(None, _("Nothing waits for this answer any more."))
            elif said["answer"]:
                decide_release(
                    product_line=ProductLine(said["line"]),
                    kb_number=said["kb"],
                    type=ReleaseType(said["answer"]),
                    decided_by=by,
                    reason=reason,
                    now=now,
                )
            else:
                self.add_error(None, _("Choose what the update is."))
        except DecisionError as error:
            self.add_error(None, str(DECISION_PROBLEMS[error.problem]))
        return not self.errors


class RollbackForm(RemoveForm):
    """A rollback takes the machine's name, typed."""

    request_id = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *, picture: VmPicture) -> None:
        super().__init__(data, vm=picture.vm)
        self.fields["request_id"].initial = uuid.uuid4
        found = picture.rollback
        self.order = found if isinstance(found, RollbackOrder) else None
        self.refusal = None if isinstance(found, RollbackOrder) else error_text(found.value)

    def clean(self) -> dict[str, Any]:
        """Where there is no way back, no name leads there."""
        if self.order is None and self.refusal is not None:
            raise forms.ValidationError(str(self.refusal.title))
        return self.cleaned_data

    def request(self, user: User) -> RequestOutcome:
        """Ask for the rollback that a valid form confirms."""
        assert self.order is not None
        return request_rollback(
            vm_id=self.vm.pk,
            order=self.order,
            requested_by=user,
            operation_id=self.cleaned_data["request_id"],
        )
