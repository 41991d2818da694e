"""Which patches a plan takes, and why each other one is left out; the hotpatch guard (docs/rules.md)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache

from patching.kb_numbers import MAX_KB_NUMBERS, without_invisible
from patching.outcome import MINUTES_FOR_REBOOT, fits, minutes_for
from patching.releases import (
    Timetable,
    expected_type,
    next_baseline_of,
    release_order,
    second_tuesday,
    timetable,
)
from patching.terms import (
    DUE_WORDS,
    LCU_TYPES,
    MAX_DURATION_MINUTES,
    ON_TRACK_WORDS,
    HotpatchTrack,
    InstallationPlan,
    InstallationState,
    Patch,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    Release,
    ReleaseType,
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


class HoldReason(StrEnum):
    """Why the hotpatch guard leaves a patch out."""

    CUMULATIVE_UPDATE = "cumulative_update"  # recorded as an LCU newer than the baseline
    UNKNOWN_OS_UPDATE = "unknown_os_update"  # an OS update whose KB is not recorded: a decision is needed


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the guard leaves a patch out.

    `off_until`: the first day of the month of the planned baseline that would bring the VM back; None where no more
    comes. `needs_decision`: somebody has to say what this KB is, or what a due machine shall do without its baseline.
    """

    reason: HoldReason
    off_until: date | None = None
    needs_decision: bool = False


@dataclass(frozen=True)
class Guard:
    """The hotpatch guard of a VM: what it leaves out unless each KB is allowed by its own tick.

    `known` None: the VM is off the train, nothing is left out. `is_due`: it lacks the baseline.
    """

    known: Timetable | None = None
    is_due: bool = False
    off_until: date | None = None

    def holds(self, patch: Patch, *, is_baseline_offered: bool = True) -> Hold | None:
        """Why this patch is left out, None where it is not.

        `is_baseline_offered`: whether the machine is offered the newest baseline, too; a due machine that is offered a
        later cumulative update instead needs a decision.
        """
        if self.known is None:
            return None
        baseline = self.known.baseline
        recorded = self.known.recorded.get(patch.kb_number)
        if recorded is not None or patch.release_type is not None:
            if not _is_lcu_after(baseline, patch, recorded):
                return None
            return Hold(HoldReason.CUMULATIVE_UPDATE, self.off_until, self.is_due and not is_baseline_offered)
        if not is_os_update(patch) or self.presumes(patch):
            return None
        return Hold(HoldReason.UNKNOWN_OS_UPDATE, self.off_until, needs_decision=True)

    def presumes(self, patch: Patch) -> bool:
        """Whether an unknown OS update is presumed to be the baseline that the catalogue lacks.

        It was published on the Patch Tuesday of a month whose baseline is not recorded (or without its KB): by the rule of
        the quarters, or because the row of an unplanned one is confirmed.
        """
        if self.known is None or patch.published_on is None or not is_os_update(patch):
            return False
        if patch.release_type is not None or patch.kb_number in self.known.recorded:
            return False
        month = patch.published_on.replace(day=1)
        rows = [r for r in self.known.out if r.month == month and r.type is ReleaseType.BASELINE]
        if any(row.kb_number for row in rows):
            return False
        is_baseline_month = expected_type(month) is ReleaseType.BASELINE or any(row.is_type_confirmed for row in rows)
        return is_baseline_month and patch.published_on == second_tuesday(month)

    def is_baseline_among(self, patches: Iterable[Patch]) -> bool:
        """Whether these offers hold the newest baseline, or what is presumed to be one."""
        baseline = self.known.baseline if self.known else None
        kb_number = baseline.kb_number if baseline else ""
        return any((kb_number and patch.kb_number == kb_number) or self.presumes(patch) for patch in patches)


def _is_lcu_after(baseline: Release | None, patch: Patch, recorded: Release | None) -> bool:
    """Whether a recorded update is an LCU newer than the baseline. Without a date it is taken for newer."""
    kind = recorded.type if recorded else patch.release_type
    if kind not in LCU_TYPES:
        return False
    if baseline is None:
        return True
    if recorded is not None:
        return release_order(recorded) > release_order(baseline)
    return patch.published_on is None or patch.published_on > baseline.released_on


# "2025-10 Cumulative Update for Microsoft server operating system version 21H2 for x64-based Systems (KB5070884)", on
# Japanese machines "… の累積更新プログラム (KB5070884)"; since late 2025 "2026-09 Security Update (KB5122871) (26100.33438)".
# A machine tells titles in its own language: what replaces the OS is found in each that Windows Server has.
_DATED = r"(?<!\d)\d{4}\s*[-/.年]\s*\d{1,2}(?!\d)"
_CUMULATIVE = r"[ck]umulati|kumulacyj|zbiorcz|souhrnn|toplu|накопительн|누적|累積|累积"
_SYSTEM = (
    r"\bWindows\b|operating system|オペレーティング|betriebssystem|d.exploitation|sistema operativo|sistema operacional"
    r"|операционн|운영 체제|操作系统|作業系統|Azure Stack HCI|Azure Local"
)
_OS_TITLE = re.compile(rf"(?=.*{_DATED})(?=.*(?:{_CUMULATIVE}))(?=.*(?:{_SYSTEM}))", re.IGNORECASE)
# Nothing but date, kind, KB and build: no other product is named.
_SHORT = re.compile(
    rf"^\s*{_DATED}\b(?:.*\(KB\d+\)\s*\(\s*(?:10\.0\.)?\d{{5}}\.\d+\s*\)"
    r"|\s+(?:(?:Security|Preview|Out-of-band|Quality|Cumulative|セキュリティ|プレビュー|品質|累積)\s*)*"
    r"(?:Update|更新プログラム)\s*\(KB\d+\)\s*$)",
    re.IGNORECASE,
)
_NO_OS_UPDATE = re.compile(
    r"\.NET\b|Servicing[\s-]*Stack|サービス\s*スタック|Hot\s?patch|ホット\s*パッチ"
    r"|SQL Server|Exchange Server|SharePoint|\bOffice\b|Microsoft Edge|Defender|Malicious Software",
    re.IGNORECASE,
)
_HYPHENS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))


@lru_cache(maxsize=4_096)
def _is_os_title(title: str) -> bool:
    text = without_invisible(unicodedata.normalize("NFKC", title)).translate(_HYPHENS)
    if _NO_OS_UPDATE.search(text):
        return False
    return _OS_TITLE.search(text) is not None or _SHORT.search(text) is not None


def is_os_update(patch: Patch) -> bool:
    """Whether it replaces the whole OS, by its title: neither .NET nor a servicing stack nor a hotpatch.

    What never reboots on the machine is a hotpatch, whatever its title says.
    """
    return patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS and _is_os_title(patch.title)


OFF_GUARD = Guard()
_GUARDED = ON_TRACK_WORDS | DUE_WORDS | {HotpatchTrack.NEWER_THAN_CATALOGUE, HotpatchTrack.UNKNOWN}


def guard_for(verdict: TrackVerdict, releases: Iterable[Release], line: ProductLine | None, as_of: datetime) -> Guard:
    """The guard of a VM that stands where the verdict says: of every one with hotpatch on that is not off track.

    One that is off, and whose build is above every recorded release, is guarded, too: an unrecorded baseline may have
    brought it back, and the next cumulative update would take it off again.
    """
    if line is None:
        return OFF_GUARD
    return guard_on(verdict, timetable(releases, line, as_of))


def guard_on(verdict: TrackVerdict, known: Timetable) -> Guard:
    """`guard_for` by a timetable that was made once for many VMs."""
    if verdict.track not in _GUARDED and not verdict.is_beyond_catalogue:
        return OFF_GUARD
    return Guard(
        known=known,
        is_due=verdict.track in DUE_WORDS,
        off_until=next_baseline_of(known.line, known.moment),
    )


@dataclass(frozen=True, slots=True)
class PatchVerdict:
    """What a plan does with one patch. Until the run is over a selected patch is Pending.

    `hold`: why the guard would leave it out, ticked or not. `is_presumed_baseline`: its KB is not recorded, and it is taken
    for the baseline that the catalogue lacks: it reboots.
    """

    patch: Patch
    state: InstallationState
    reason: SelectionReason
    hold: Hold | None = None
    is_presumed_baseline: bool = False

    @property
    def off_until(self) -> date | None:
        """For a patch that would take the VM off the train: the month of the planned baseline that brings it back."""
        return self.hold.off_until if self.hold else None

    @property
    def certainly_reboots(self) -> bool:
        """Whether installing it is certain to need a reboot."""
        return self.is_presumed_baseline or self.patch.reboot_behavior is RebootBehavior.ALWAYS_REQUIRES_REBOOT

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
    """Give every available patch exactly one verdict, the first that applies in the order of `docs/rules.md`.

    `included_kb_overrides_guard`: at the ARM door, naming a KB allows what the guard would leave out; in pages only
    a tick (`plan.guard_overrides`) does. A class never does.
    """
    included = frozenset(plan.kb_numbers_to_include)
    overrides = frozenset(plan.guard_overrides) | (included if included_kb_overrides_guard else frozenset())
    available = {patch.kb_number for patch in patches}
    is_baseline_offered = guard.is_baseline_among(patches)
    verdicts = []
    for patch in patches:
        hold = guard.holds(patch, is_baseline_offered=is_baseline_offered)
        state, reason = _judge(patch, plan, included, overrides, is_held=hold is not None)
        verdicts.append(PatchVerdict(patch, state, reason, hold, guard.presumes(patch)))
    return Selection(
        verdicts=tuple(verdicts),
        unavailable_kbs=tuple(kb for kb in plan.kb_numbers_to_include if kb not in available),
    )


def _judge(
    patch: Patch,
    plan: InstallationPlan,
    included: frozenset[str],
    overrides: frozenset[str],
    *,
    is_held: bool,
) -> tuple[InstallationState, SelectionReason]:
    if (reason := _excluded(patch, plan)) is not None:
        return InstallationState.EXCLUDED, reason
    is_included = bool(patch.kb_number) and patch.kb_number in included
    if patch.classification not in plan.classifications and not is_included:
        return InstallationState.NOT_SELECTED, SelectionReason.NOT_IN_CLASSES
    if plan.patch_name_masks_to_include and not _matches(patch.title, plan.patch_name_masks_to_include):
        return InstallationState.NOT_SELECTED, SelectionReason.NAME_MASK_NOT_INCLUDED
    if is_held and (not patch.kb_number or patch.kb_number not in overrides):
        return InstallationState.NOT_SELECTED, SelectionReason.GUARD
    if is_held:
        return InstallationState.PENDING, SelectionReason.GUARD_OVERRIDDEN
    return InstallationState.PENDING, SelectionReason.KB_INCLUDED if is_included else SelectionReason.CLASS_SELECTED


def _excluded(patch: Patch, plan: InstallationPlan) -> SelectionReason | None:
    """What of the plan's filters excludes a patch, whether or not its classes or KBs would take it."""
    if patch.kb_number and patch.kb_number in plan.kb_numbers_to_exclude:
        return SelectionReason.EXCLUDED_BY_KB
    if plan.exclude_kbs_requiring_reboot and patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS:
        return SelectionReason.REQUIRES_REBOOT
    latest = plan.max_patch_publish_date
    if latest is not None and patch.published_on is not None and patch.published_on > latest:
        return SelectionReason.PUBLISHED_LATER
    if _matches(patch.title, plan.patch_name_masks_to_exclude):
        return SelectionReason.NAME_MASK_EXCLUDED
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
    reboot = _reboot_prospect(selection.selected, plan.reboot_setting, is_reboot_pending)
    elapsed, fitting = timedelta(), 0
    for index, patch in enumerate(patches):
        if fitting == index and fits(elapsed, patch, plan.maximum_duration):
            fitting += 1
        elapsed += timedelta(minutes=minutes_for(patch))
    if reboot in {RebootProspect.POSSIBLE, RebootProspect.CERTAIN}:
        elapsed += timedelta(minutes=MINUTES_FOR_REBOOT)
    return RunProspect(count=len(patches), duration=elapsed, reboot=reboot, fitting=fitting)


def _reboot_prospect(
    selected: Sequence[PatchVerdict], setting: RebootSetting, is_reboot_pending: bool
) -> RebootProspect:
    is_certain = is_reboot_pending or any(verdict.certainly_reboots for verdict in selected)
    is_possible = any(verdict.patch.reboot_behavior is not RebootBehavior.NEVER_REBOOTS for verdict in selected)
    if setting is RebootSetting.ALWAYS:
        return RebootProspect.CERTAIN
    if setting is RebootSetting.NEVER:
        return RebootProspect.REQUIRED_BUT_NOT_ALLOWED if is_certain or is_possible else RebootProspect.NEVER
    if is_certain:
        return RebootProspect.CERTAIN
    return RebootProspect.POSSIBLE if is_possible else RebootProspect.NEVER


class RunWork(StrEnum):
    """What a run would do on a VM."""

    UPDATES = "updates"
    PENDING_REBOOT = "pending_reboot"  # no update, but the reboot that is pending
    NOTHING = "nothing"


def work_of(selection: Selection, plan: InstallationPlan, *, is_reboot_pending: bool) -> RunWork:
    """What a run of this selection would do. With nothing to do at all every door refuses."""
    if selection.selected:
        return RunWork.UPDATES
    if is_reboot_pending and plan.reboot_setting is not RebootSetting.NEVER:
        return RunWork.PENDING_REBOOT
    return RunWork.NOTHING


# --- what a review promises --------------------------------------------------------------------------------------


def named(plan: InstallationPlan, selection: Selection) -> InstallationPlan:
    """The plan that takes what this selection takes, by name, so that nothing joins that is offered later.

    What has no name of its own (no KB, or the KB of another update that is left out) stays selected by its class, and what
    of that class is left out is excluded. A selection that takes nothing leaves the plan as it is.
    """
    if not selection.selected:
        return plan
    taken = [verdict.patch for verdict in selection.selected]
    left_out = [verdict.patch for verdict in selection.left_out]
    shared = {patch.kb_number for patch in left_out} - {*plan.kb_numbers_to_include}
    kb_numbers = tuple(dict.fromkeys(p.kb_number for p in taken if p.kb_number and p.kb_number not in shared))
    classes = frozenset(patch.classification for patch in taken if patch.kb_number not in kb_numbers)
    others = {p.kb_number for p in left_out if p.kb_number and p.classification in classes}
    others -= {*plan.kb_numbers_to_exclude, *(patch.kb_number for patch in taken)}
    excluded = (*plan.kb_numbers_to_exclude, *sorted(others))
    return replace(plan, classifications=classes, kb_numbers_to_include=kb_numbers, kb_numbers_to_exclude=excluded)


@dataclass(frozen=True, slots=True)
class RunOutlook:
    """What a review said of a machine: what a run does there, and whether it reboots."""

    work: RunWork
    reboot: RebootProspect

    def covers(self, now: RunOutlook) -> bool:
        """Whether what a run would do now is what was said, or less (docs/rules.md, what a review promises)."""
        if now.work is RunWork.NOTHING:
            return True
        if self.work is RunWork.NOTHING or (self.work is RunWork.PENDING_REBOOT and now.work is RunWork.UPDATES):
            return False
        return self.reboots or not now.reboots

    @property
    def reboots(self) -> bool:
        """Whether the machine reboots, or may."""
        return self.reboot in {RebootProspect.POSSIBLE, RebootProspect.CERTAIN}
