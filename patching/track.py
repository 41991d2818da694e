"""Hotpatch status and hotpatch track: where a VM stands on the train, and what comes next (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime

from patching.eligibility import Eligibility, EligibilityVerdict
from patching.releases import (
    is_offered,
    is_released,
    newest_baseline,
    next_planned_baseline_month,
    release_order,
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


@dataclass(frozen=True, slots=True)
class TrackVerdict:
    """Where a VM stands.

    `installed` is R, `baseline` is B, `off_since` the release that took it off the train, `next_offer` what Windows
    Update offers next (None: nothing newer is released), `back_on_track` the first day of the month of the next
    planned baseline, for a VM that is off (an unplanned baseline may come sooner).
    """

    track: HotpatchTrack
    installed: Release | None = None
    baseline: Release | None = None
    off_since: Release | None = None
    next_offer: Release | None = None
    back_on_track: date | None = None


def newest_installed(
    releases: Iterable[Release],
    line: ProductLine,
    installed_kbs: Collection[str],
    os_build: str,
) -> Release | None:
    """R: the newest OS release that is installed, found by its KB, and by the build where the release has one."""
    present = (
        release
        for release in releases
        if release.product_line is line and _is_installed(release, installed_kbs, os_build)
    )
    return max(present, key=release_order, default=None)


def _is_installed(release: Release, installed_kbs: Collection[str], os_build: str) -> bool:
    """By its KB, and by the build where the release has one."""
    by_kb = bool(release.kb_number) and release.kb_number in installed_kbs
    return by_kb or (bool(release.build) and release.build == os_build)


def judge_track(
    releases: Iterable[Release],
    line: ProductLine | None,
    *,
    is_hotpatch_on: bool,
    installed_kbs: Collection[str],
    os_build: str,
    as_of: datetime,
) -> TrackVerdict:
    """Judge where a VM stands on the train at a moment, and what Windows Update offers it next."""
    if line is None:
        return TrackVerdict(HotpatchTrack.UNKNOWN if is_hotpatch_on else HotpatchTrack.NOT_ON_TRAIN)
    own = [release for release in releases if release.product_line is line]
    installed = newest_installed(own, line, installed_kbs, os_build)
    baseline = newest_baseline(own, line, as_of)
    if not is_hotpatch_on:
        offer = _newest_full(own, installed, as_of)
        return TrackVerdict(HotpatchTrack.NOT_ON_TRAIN, installed, baseline, next_offer=offer)
    if installed is None or baseline is None:
        return TrackVerdict(HotpatchTrack.UNKNOWN, installed, baseline)
    if release_order(installed) < release_order(baseline):
        return _behind(own, installed, baseline, as_of)
    # A hotpatch works on its baseline only: once a cumulative update has replaced that, a later hotpatch changes nothing.
    if off_since := _first_lcu_after(own, baseline, installed_kbs, os_build):
        return TrackVerdict(
            HotpatchTrack.OFF_TRACK_SINCE_KB,
            installed,
            baseline,
            off_since=off_since,
            next_offer=_newest_full(own, installed, as_of),
            back_on_track=next_planned_baseline_month(as_of),
        )
    return TrackVerdict(
        HotpatchTrack.ON_TRACK,
        installed,
        baseline,
        next_offer=_newest_hotpatch(own, baseline, installed, as_of),
    )


def _behind(own: Iterable[Release], installed: Release, baseline: Release, moment: datetime) -> TrackVerdict:
    """R is older than B: B is due until something later than B is out; then B was missed."""
    later = [
        release for release in own if release_order(release) > release_order(baseline) and is_released(release, moment)
    ]
    if not later:
        return TrackVerdict(HotpatchTrack.BASELINE_DUE, installed, baseline, next_offer=baseline)
    return TrackVerdict(
        HotpatchTrack.OFF_TRACK_BASELINE_MISSED,
        installed,
        baseline,
        next_offer=_newest_full(own, installed, moment),
        back_on_track=next_planned_baseline_month(moment),
    )


def _first_lcu_after(
    own: Iterable[Release], baseline: Release, installed_kbs: Collection[str], os_build: str
) -> Release | None:
    """The release that took the VM off the train: the first LCU after B that is installed, None if there is none."""
    taken = (
        release
        for release in own
        if release.type in LCU_TYPES
        and release_order(release) > release_order(baseline)
        and _is_installed(release, installed_kbs, os_build)
    )
    return min(taken, key=release_order, default=None)


def _newest_full(own: Iterable[Release], installed: Release | None, moment: datetime) -> Release | None:
    """The newest cumulative update that is newer than what is installed: an LCU, or the baseline that is one."""
    full = [
        release
        for release in own
        if (release.type in LCU_TYPES or release.type is ReleaseType.BASELINE)
        and is_offered(release, moment)
        and (installed is None or release_order(release) > release_order(installed))
    ]
    return max(full, key=release_order, default=None)


def _newest_hotpatch(own: Iterable[Release], baseline: Release, installed: Release, moment: datetime) -> Release | None:
    """The newest hotpatch on B that is newer than what is installed (hotpatches are cumulative)."""
    hotpatches = [
        release
        for release in own
        if release.type in HOTPATCH_TYPES
        and is_offered(release, moment)
        and release_order(release) > max(release_order(baseline), release_order(installed))
    ]
    return max(hotpatches, key=release_order, default=None)
