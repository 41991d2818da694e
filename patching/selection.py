"""Which patches a plan takes, and why each other one is left out; the hotpatch guard (docs/rules.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from patching.kb_numbers import MAX_KB_NUMBERS
from patching.outcome import MINUTES_FOR_REBOOT, fits, minutes_for
from patching.terms import (
    LCU_TYPES,
    MAX_DURATION_MINUTES,
    HotpatchTrack,
    InstallationPlan,
    InstallationState,
    Patch,
    RebootBehavior,
    RebootSetting,
)
from patching.track import TrackVerdict


class SelectionReason(StrEnum):
    """Why a patch is taken or left out."""

    CLASS_SELECTED = "class_selected"
    KB_INCLUDED = "kb_included"
    GUARD_OVERRIDDEN = "guard_overridden"
    EXCLUDED_BY_KB = "excluded_by_kb"
    NOT_IN_CLASSES = "not_in_classes"
    GUARD = "guard"
    REQUIRES_REBOOT = "requires_reboot"
    PUBLISHED_LATER = "published_later"
    NAME_MASK_EXCLUDED = "name_mask_excluded"
    NAME_MASK_NOT_INCLUDED = "name_mask_not_included"


class PlanProblem(StrEnum):
    """Why a plan can be carried out on no VM."""

    NOTHING_SELECTED = "nothing_selected"
    DURATION_OUT_OF_RANGE = "duration_out_of_range"
    TOO_MANY_KBS = "too_many_kbs"
    BAD_NAME_MASK = "bad_name_mask"


@dataclass(frozen=True, slots=True)
class Guard:
    """What the hotpatch guard needs to know: whether the VM is on track, its baseline, and until when it would be off.

    `off_until` is the first day of the month of the next planned baseline.
    """

    is_on_track: bool
    baseline_released_on: date | None = None
    off_until: date | None = None

    def holds_back(self, patch: Patch) -> bool:
        """Whether installing this patch takes the VM off the hotpatch train."""
        return (
            self.is_on_track
            and patch.release_type in LCU_TYPES
            and self.baseline_released_on is not None
            and (patch.published_on is None or patch.published_on > self.baseline_released_on)
        )


OFF_GUARD = Guard(is_on_track=False)


def guard_for(verdict: TrackVerdict, off_until: date | None = None) -> Guard:
    """The guard of a VM that stands where the verdict says."""
    return Guard(
        is_on_track=verdict.track is HotpatchTrack.ON_TRACK,
        baseline_released_on=verdict.baseline.released_on if verdict.baseline else None,
        off_until=off_until,
    )


@dataclass(frozen=True, slots=True)
class PatchVerdict:
    """What a plan does with one patch. Until the run is over a selected patch is Pending.

    `off_until`: for a patch that takes the VM off the train, the month of the next planned baseline.
    """

    patch: Patch
    state: InstallationState
    reason: SelectionReason
    off_until: date | None = None

    @property
    def is_selected(self) -> bool:
        """Whether the run will try to install it."""
        return self.state is InstallationState.PENDING


@dataclass(frozen=True, slots=True)
class Selection:
    """One verdict per available patch, and the included KBs that are not available on the VM."""

    verdicts: tuple[PatchVerdict, ...]
    unavailable_kbs: tuple[str, ...]

    @property
    def selected(self) -> tuple[PatchVerdict, ...]:
        """The patches that the run will try to install."""
        return tuple(verdict for verdict in self.verdicts if verdict.is_selected)

    @property
    def left_out(self) -> tuple[PatchVerdict, ...]:
        """The patches that the run will leave alone."""
        return tuple(verdict for verdict in self.verdicts if not verdict.is_selected)


def validate_plan(plan: InstallationPlan) -> tuple[PlanProblem, ...]:
    """Everything that is wrong with a plan on its own, before any VM is looked at."""
    problems = []
    if not (plan.classifications or plan.kb_numbers_to_include):
        problems.append(PlanProblem.NOTHING_SELECTED)
    if not timedelta(minutes=1) <= plan.maximum_duration <= timedelta(minutes=MAX_DURATION_MINUTES):
        problems.append(PlanProblem.DURATION_OUT_OF_RANGE)
    if max(len(plan.kb_numbers_to_include), len(plan.kb_numbers_to_exclude)) > MAX_KB_NUMBERS:
        problems.append(PlanProblem.TOO_MANY_KBS)
    masks = (*plan.patch_name_masks_to_include, *plan.patch_name_masks_to_exclude)
    if not all(is_name_mask(mask) for mask in masks):
        problems.append(PlanProblem.BAD_NAME_MASK)
    return tuple(problems)


def is_name_mask(mask: str) -> bool:
    """Whether a mask has letters, digits, `*` and `?` only, and at least one of them."""
    return re.fullmatch(r"[A-Za-z0-9*?]+", mask) is not None


def select(
    patches: Sequence[Patch],
    plan: InstallationPlan,
    *,
    guard: Guard,
    included_kb_overrides_guard: bool = False,
) -> Selection:
    """Give every available patch exactly one verdict.

    `included_kb_overrides_guard`: at the ARM door, naming a KB allows what the guard would leave out; in pages only
    a tick (`plan.guard_overrides`) does.
    """
    included = frozenset(plan.kb_numbers_to_include)
    overrides = frozenset(plan.guard_overrides) | (included if included_kb_overrides_guard else frozenset())
    available = {patch.kb_number for patch in patches}
    return Selection(
        verdicts=tuple(_judge(patch, plan, included, overrides, guard) for patch in patches),
        unavailable_kbs=tuple(kb for kb in plan.kb_numbers_to_include if kb not in available),
    )


def _judge(
    patch: Patch,
    plan: InstallationPlan,
    included: frozenset[str],
    overrides: frozenset[str],
    guard: Guard,
) -> PatchVerdict:
    is_held = guard.holds_back(patch)
    off_until = guard.off_until if is_held else None

    def verdict(state: InstallationState, reason: SelectionReason) -> PatchVerdict:
        return PatchVerdict(patch, state, reason, off_until)

    if patch.kb_number and patch.kb_number in plan.kb_numbers_to_exclude:
        return verdict(InstallationState.EXCLUDED, SelectionReason.EXCLUDED_BY_KB)
    is_included = bool(patch.kb_number) and patch.kb_number in included
    if patch.classification not in plan.classifications and not is_included:
        return verdict(InstallationState.NOT_SELECTED, SelectionReason.NOT_IN_CLASSES)
    if is_held and patch.kb_number not in overrides:
        return verdict(InstallationState.NOT_SELECTED, SelectionReason.GUARD)
    if (reason := _left_out(patch, plan)) is not None:
        return verdict(InstallationState.NOT_SELECTED, reason)
    if is_held:
        return verdict(InstallationState.PENDING, SelectionReason.GUARD_OVERRIDDEN)
    return verdict(
        InstallationState.PENDING,
        SelectionReason.KB_INCLUDED if is_included else SelectionReason.CLASS_SELECTED,
    )


def _left_out(patch: Patch, plan: InstallationPlan) -> SelectionReason | None:
    """What of the plan's filters leaves out a patch that its classes or KBs would take."""
    if plan.exclude_kbs_requiring_reboot and patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS:
        return SelectionReason.REQUIRES_REBOOT
    latest = plan.max_patch_publish_date
    if latest is not None and patch.published_on is not None and patch.published_on > latest:
        return SelectionReason.PUBLISHED_LATER
    if _matches(patch.title, plan.patch_name_masks_to_exclude):
        return SelectionReason.NAME_MASK_EXCLUDED
    if plan.patch_name_masks_to_include and not _matches(patch.title, plan.patch_name_masks_to_include):
        return SelectionReason.NAME_MASK_NOT_INCLUDED
    return None


def _matches(title: str, masks: Iterable[str]) -> bool:
    """Whether any mask matches the whole title, without regard to case."""
    return any(fnmatchcase(title.lower(), mask.lower()) for mask in masks)


# --- what the run will be like -----------------------------------------------------------------------------------


class RebootProspect(StrEnum):
    """Whether a run will reboot the VM."""

    NEVER = "never"
    POSSIBLE = "possible"
    CERTAIN = "certain"
    REQUIRED_BUT_NOT_ALLOWED = "required_but_not_allowed"


@dataclass(frozen=True, slots=True)
class RunProspect:
    """What to expect of a run: `duration` by the averages of docs/rules.md, and how many updates fit in the window."""

    count: int
    duration: timedelta
    reboot: RebootProspect
    fitting: int

    @property
    def fits_in_window(self) -> bool:
        """Whether everything selected can be started in time."""
        return self.fitting == self.count


def prospect(selection: Selection, plan: InstallationPlan, *, is_reboot_pending: bool = False) -> RunProspect:
    """Estimate the run of a selection: minutes per update, the reboot, and what the maximum duration leaves out."""
    patches = [verdict.patch for verdict in selection.selected]
    reboot = _reboot_prospect(patches, plan.reboot_setting, is_reboot_pending)
    elapsed, fitting = timedelta(), 0
    for index, patch in enumerate(patches):
        if fitting == index and fits(elapsed, patch, plan.maximum_duration):
            fitting += 1
        elapsed += timedelta(minutes=minutes_for(patch))
    if reboot in {RebootProspect.POSSIBLE, RebootProspect.CERTAIN}:
        elapsed += timedelta(minutes=MINUTES_FOR_REBOOT)
    return RunProspect(count=len(patches), duration=elapsed, reboot=reboot, fitting=fitting)


def _reboot_prospect(patches: Sequence[Patch], setting: RebootSetting, is_reboot_pending: bool) -> RebootProspect:
    behaviors = {patch.reboot_behavior for patch in patches}
    is_certain = is_reboot_pending or RebootBehavior.ALWAYS_REQUIRES_REBOOT in behaviors
    is_possible = bool(behaviors - {RebootBehavior.NEVER_REBOOTS})
    if setting is RebootSetting.ALWAYS:
        return RebootProspect.CERTAIN
    if setting is RebootSetting.NEVER:
        return RebootProspect.REQUIRED_BUT_NOT_ALLOWED if is_certain or is_possible else RebootProspect.NEVER
    if is_certain:
        return RebootProspect.CERTAIN
    return RebootProspect.POSSIBLE if is_possible else RebootProspect.NEVER
