"""Hotpatch status and hotpatch track: where a VM stands on the train, and what comes next (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import islice, takewhile

from patching.eligibility import Eligibility, EligibilityVerdict
from patching.outcome import build_order, plain_build
from patching.releases import (
    Timetable,
    comes_through_windows_update,
    is_train_over,
    next_baseline_of,
    next_month,
    patch_tuesday,
    release_order,
    timetable,
)
from patching.terms import (
    HOTPATCH_TYPES,
    LCU_TYPES,
    HotpatchStatus,
    HotpatchTrack,
    ProductLine,
    Release,
    ReleaseType,
)


def hotpatch_status(eligibility: Eligibility, *, is_enabled: bool, was_assessed: bool) -> HotpatchStatus:
    """The state of the hotpatch setting, as the Azure portal words it."""
    if eligibility.verdict is not EligibilityVerdict.ELIGIBLE:
        return HotpatchStatus.NOT_AVAILABLE
    if not was_assessed:
        return HotpatchStatus.PENDING_EVALUATION
    return HotpatchStatus.ENABLED if is_enabled else HotpatchStatus.DISABLED


class Contradiction(StrEnum):
    """Why what is known of a machine does not fit together. Another assessment may settle it."""

    BUILD_BELOW_KBS = "build_below_kbs"
    BUILD_ABOVE_KBS = "build_above_kbs"
    HOTPATCH_WITHOUT_BASELINE = "hotpatch_without_baseline"
    BUILD_OF_TWO_RELEASES = "build_of_two_releases"
    LCU_WAITS_FOR_REBOOT = "lcu_waits_for_reboot"  # which release will run is seen after the reboot


class OffTrainReason(StrEnum):
    """Why a machine is not on the train."""

    HOTPATCH_OFF = "hotpatch_off"  # switched off, or not available: the hotpatch status says which
    NOT_READY = "not_ready"  # the machine reports ActionRequired
    TRAIN_ENDED = "train_ended"  # the product line gets no more hotpatches


@dataclass(frozen=True, slots=True)
class TrackVerdict:
    """Where a VM stands.

    `installed` is R, the newest release in effect; `baseline` is B, the newest released baseline; `off_since` the
    release that took the VM off the train. `way_back` is what comes next, in order; it is empty where nothing newer is
    recorded or nothing can be named. `back_on_track`: for a VM that is off, the first day of the month of the next planned
    baseline (an unplanned one may come sooner). `known_until` is the month of the newest recorded monthly release,
    `missing_months` are those after B's month that are out by the calendar and not recorded. `is_kb_missing`: B's KB is
    not recorded, so it cannot be offered. `uncertain`: releases on which the verdict rests and whose type is not
    confirmed. `contradiction` says why the track is unknown although something is known. `is_beyond_catalogue`: the build is
    above every recorded release, so a baseline that nobody has recorded may be installed.
    """

    track: HotpatchTrack
    installed: Release | None = None
    baseline: Release | None = None
    off_since: Release | None = None
    way_back: tuple[Release, ...] = ()
    back_on_track: date | None = None
    contradiction: Contradiction | None = None
    off_train_reason: OffTrainReason | None = None
    known_until: date | None = None
    missing_months: tuple[date, ...] = ()
    is_kb_missing: bool = False
    uncertain: tuple[Release, ...] = ()
    is_beyond_catalogue: bool = False

    @property
    def next_offer(self) -> Release | None:
        """What comes next; None where nothing newer is recorded or nothing can be named."""
        return self.way_back[0] if self.way_back else None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the facts of a machine say by themselves.

    `listed` are the releases whose KB is listed, `in_effect` those that run (both the oldest first); `is_explained`:
    a listed KB accounts for the build (or no build is known).
    """

    listed: tuple[Release, ...]
    in_effect: tuple[Release, ...]
    not_reached: tuple[Release, ...]
    is_explained: bool


def stand(known: Timetable, installed_kbs: Collection[str], os_build: str, *, is_list_complete: bool) -> Standing:
    """Sort a machine's facts: which releases are listed, which run, and whether the listed ones explain the build."""
    found = (known.by_kb.get(kb_number) for kb_number in installed_kbs)
    listed = tuple(sorted((release for release in found if release is not None), key=release_order))
    if not os_build:
        return Standing(listed, listed, (), is_explained=True)
    build = build_order(os_build)
    reached = tuple(release for release in listed if is_reached(known, release, build))
    is_explained = any(_explains(known, release, build) for release in reached)
    in_effect = reached
    if not is_explained:
        same = known.by_build.get(os_build, ())
        # A missing KB proves something only in a complete list, and only where the release has a KB.
        if len(same) == 1 and not (is_list_complete and same[0].kb_number):
            in_effect = tuple(sorted((*reached, *same), key=release_order))
    return Standing(listed, in_effect, tuple(r for r in listed if r not in reached), is_explained)


def is_reached(known: Timetable, release: Release, build: tuple[int, ...]) -> bool:
    """Whether a build is not below the release's.

    Where that is not recorded: a baseline lies above everything older, the others not below their baseline.
    """
    if release.build:
        return build >= build_order(release.build)
    if release.type is ReleaseType.BASELINE:
        return build > known.newest_build_before(release)
    base = known.base_of(release)
    return base is None or is_reached(known, base, build)


def _explains(known: Timetable, release: Release, build: tuple[int, ...]) -> bool:
    """Whether a listed release accounts for a build that it reaches; without a recorded one up to the next recorded."""
    if release.build:
        return build == build_order(release.build)
    following = known.next_build_after(release)
    return not following or build < following


def is_consistent(known: Timetable, standing: Standing) -> bool:
    """Whether a complete list and a build tell the same story: every listed release runs, and they explain the build."""
    return standing.is_explained and not standing.not_reached and not _lacks_its_baseline(known, standing)


def judge_track(
    releases: Iterable[Release],
    line: ProductLine | None,
    *,
    is_hotpatch_on: bool,
    installed_kbs: Collection[str],
    os_build: str,
    as_of: datetime,
    is_list_complete: bool = False,
    is_reboot_pending: bool | None = None,
    is_ready: bool = True,
) -> TrackVerdict:
    """Judge where a VM stands on the train at a moment, and what comes next.

    `is_list_complete`: the installed KBs are all there are, so that a missing one proves something. `is_reboot_pending`
    None: the machine does not say. `is_ready` False: it reports ActionRequired or not ready.
    """
    if line is None:
        track = HotpatchTrack.UNKNOWN if is_hotpatch_on else HotpatchTrack.NOT_ON_TRAIN
        return TrackVerdict(track, off_train_reason=None if is_hotpatch_on else OffTrainReason.HOTPATCH_OFF)
    return judge_track_on(
        timetable(releases, line, as_of),
        is_hotpatch_on=is_hotpatch_on,
        installed_kbs=installed_kbs,
        os_build=os_build,
        is_list_complete=is_list_complete,
        is_reboot_pending=is_reboot_pending,
        is_ready=is_ready,
    )


def judge_track_on(
    known: Timetable,
    *,
    is_hotpatch_on: bool,
    installed_kbs: Collection[str],
    os_build: str,
    is_list_complete: bool = False,
    is_reboot_pending: bool | None = None,
    is_ready: bool = True,
) -> TrackVerdict:
    """`judge_track` by a timetable that was made once for many VMs. The first case of docs/rules.md that fits decides."""
    os_build = plain_build(os_build)
    standing = stand(known, installed_kbs, os_build, is_list_complete=is_list_complete)
    baseline = known.baseline
    verdict = _Verdict(known, standing)
    if (reason := _off_train(known, is_hotpatch_on=is_hotpatch_on, is_ready=is_ready)) is not None:
        return verdict(HotpatchTrack.NOT_ON_TRAIN, way_back=_newest_full(known, standing), off_train_reason=reason)
    if not standing.listed and not os_build:
        return verdict(HotpatchTrack.UNKNOWN)
    is_beyond = not standing.is_explained and build_order(os_build) > known.newest_build
    # A hotpatch works on its baseline only: once a cumulative update has replaced that, a later hotpatch changes nothing.
    if (off_since := _first_lcu(known, standing)) is not None:
        return verdict(
            HotpatchTrack.OFF_TRACK_SINCE_KB,
            off_since=off_since,
            way_back=_newest_full(known, standing),
            back_on_track=next_baseline_of(known.line, known.moment),
            is_beyond_catalogue=is_beyond,
        )
    if is_beyond and not (baseline is not None and _waits(baseline, standing, os_build, is_reboot_pending)):
        return verdict(HotpatchTrack.NEWER_THAN_CATALOGUE, is_beyond_catalogue=True)
    if baseline is not None and _waits(baseline, standing, os_build, is_reboot_pending):
        return verdict(HotpatchTrack.WAITS_FOR_REBOOT)
    contradiction = _contradiction(
        known, standing, os_build, is_list_complete=is_list_complete, is_reboot_pending=is_reboot_pending
    )
    if contradiction is not None or baseline is None:
        return verdict(HotpatchTrack.UNKNOWN, contradiction=contradiction)
    installed = _newest(standing.in_effect)
    if installed is not None and release_order(installed) >= release_order(baseline):
        is_known = not verdict.missing
        return verdict(
            HotpatchTrack.ON_TRACK if is_known else HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN,
            way_back=_newest_hotpatch(known, baseline, _newest((*standing.listed, installed))),
        )
    is_overdue = known.moment >= patch_tuesday(next_month(baseline.month))
    return verdict(
        HotpatchTrack.BASELINE_OVERDUE if is_overdue else HotpatchTrack.BASELINE_DUE,
        way_back=(baseline, *_newest_hotpatch(known, baseline, baseline)) if baseline.kb_number else (),
    )


class _Verdict:
    """Makes the verdicts of one machine: each carries what is known of its line."""

    def __init__(self, known: Timetable, standing: Standing) -> None:
        self.known = known
        self.installed = _newest(standing.in_effect)
        self.missing = known.missing_after_baseline

    def __call__(
        self,
        track: HotpatchTrack,
        *,
        off_since: Release | None = None,
        way_back: tuple[Release, ...] = (),
        back_on_track: date | None = None,
        contradiction: Contradiction | None = None,
        off_train_reason: OffTrainReason | None = None,
        is_beyond_catalogue: bool = False,
    ) -> TrackVerdict:
        baseline = self.known.baseline
        bearing = dict.fromkeys(r for r in (baseline, self.installed, off_since, *way_back) if r is not None)
        return TrackVerdict(
            track,
            installed=self.installed,
            baseline=baseline,
            off_since=off_since,
            way_back=way_back,
            back_on_track=back_on_track,
            contradiction=contradiction,
            off_train_reason=off_train_reason,
            known_until=self.known.ends,
            missing_months=self.missing,
            is_kb_missing=baseline is not None and not baseline.kb_number,
            uncertain=tuple(release for release in bearing if not release.is_type_confirmed),
            is_beyond_catalogue=is_beyond_catalogue,
        )


def _newest(releases: Collection[Release]) -> Release | None:
    return max(releases, key=release_order, default=None)


def _off_train(known: Timetable, *, is_hotpatch_on: bool, is_ready: bool) -> OffTrainReason | None:
    if not is_hotpatch_on:
        return OffTrainReason.HOTPATCH_OFF
    if is_train_over(known.line, known.moment):
        return OffTrainReason.TRAIN_ENDED
    return None if is_ready else OffTrainReason.NOT_READY


def _is_after_baseline(known: Timetable) -> Callable[[Release], bool]:
    baseline = known.baseline
    order = release_order(baseline) if baseline else None
    return lambda release: order is None or release_order(release) > order


def _first_lcu(known: Timetable, standing: Standing) -> Release | None:
    """The release that took the VM off the train: the first LCU newer than B that is in effect."""
    is_after = _is_after_baseline(known)
    return next((r for r in standing.in_effect if r.type in LCU_TYPES and is_after(r)), None)


def _waits(baseline: Release, standing: Standing, os_build: str, is_reboot_pending: bool | None) -> bool:
    """Whether B is installed, the newest that is, and waits for its reboot."""
    if _newest(standing.listed) != baseline:
        return False
    if not os_build:
        return is_reboot_pending is True
    return baseline in standing.not_reached and is_reboot_pending is not False


def _contradiction(
    known: Timetable,
    standing: Standing,
    os_build: str,
    *,
    is_list_complete: bool,
    is_reboot_pending: bool | None,
) -> Contradiction | None:
    """What does not fit together, the first that applies."""
    if (behind := _behind(known, standing, is_reboot_pending)) is not None:
        return behind
    if is_list_complete and _lacks_its_baseline(known, standing):
        return Contradiction.HOTPATCH_WITHOUT_BASELINE
    baseline = known.baseline
    is_accounted_for = standing.is_explained or any(r.build == os_build for r in standing.in_effect)
    if is_accounted_for or baseline is None or not is_reached(known, baseline, build_order(os_build)):
        return None
    if not is_list_complete and len(known.by_build.get(os_build, ())) > 1:
        return Contradiction.BUILD_OF_TWO_RELEASES
    return Contradiction.BUILD_ABOVE_KBS


def _behind(known: Timetable, standing: Standing, is_reboot_pending: bool | None) -> Contradiction | None:
    """A build below what the listed KBs say, unless a reboot that is not denied explains it."""
    if not standing.not_reached:
        return None
    is_after = _is_after_baseline(known)
    newest = standing.listed[-1]
    if is_reboot_pending is False or newest not in standing.not_reached or newest.type in HOTPATCH_TYPES:
        return Contradiction.BUILD_BELOW_KBS
    # A cumulative update waits for its reboot. One older than B changes nothing: B is due, whatever the reboot brings.
    return Contradiction.LCU_WAITS_FOR_REBOOT if is_after(newest) else None


def _lacks_its_baseline(known: Timetable, standing: Standing) -> bool:
    """Whether the newest listed release is a hotpatch whose baseline is not listed (nor an LCU that holds it)."""
    if not standing.listed or standing.listed[-1].type not in HOTPATCH_TYPES:
        return False
    base = known.base_of(standing.listed[-1])
    if base is None or not base.kb_number:
        return False
    order = release_order(base)
    return not any(r.type not in HOTPATCH_TYPES and release_order(r) >= order for r in standing.listed)


def _newest_full(known: Timetable, standing: Standing) -> tuple[Release, ...]:
    """The newest cumulative update that is newer than what is there: an LCU, or the baseline that is one."""
    have = _newest((*standing.listed, *standing.in_effect))
    for release in reversed(known.out):
        if have is not None and release_order(release) <= release_order(have):
            break
        if release.kb_number and release.type not in HOTPATCH_TYPES and comes_through_windows_update(release):
            return (release,)
    return ()


def _newest_hotpatch(known: Timetable, baseline: Release, have: Release | None) -> tuple[Release, ...]:
    """The newest hotpatch on B that is newer than what is there (hotpatches are cumulative)."""
    order = max(release_order(release) for release in (baseline, have) if release is not None)
    newer = takewhile(lambda release: release_order(release) > order, reversed(known.out))
    hotpatches = (r for r in newer if r.type in HOTPATCH_TYPES and r.kb_number and comes_through_windows_update(r))
    return tuple(islice(hotpatches, 1))
