"""Who patches a VM: the one answer that the Updates page shows and the scheduler acts on (docs/rules.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patching.terms import PatchMode


class Patcher(StrEnum):
    """Who installs updates on a VM without anybody asking for it."""

    NOBODY = "nobody"
    GUEST_OS = "guest_os"
    PLATFORM = "platform"  # behind the connection: we show and follow, and never do it twice
    PORTAL_AUTOMATICALLY = "portal_automatically"
    PORTAL_BY_SCHEDULE = "portal_by_schedule"


class PatcherReason(StrEnum):
    """Why it is this one, and what to change if it should be another."""

    AUTOMATIC_GUEST_PATCHING = "automatic_guest_patching"
    SCHEDULE_ATTACHED = "schedule_attached"
    WINDOWS_AUTOMATIC_UPDATES = "windows_automatic_updates"
    MANUAL_UPDATES = "manual_updates"
    NO_AGENT = "no_agent"
    AUTOMATIC_SWITCHED_OFF = "automatic_switched_off"  # on the connection
    SCHEDULE_MISSING = "schedule_missing"  # customer managed schedules, and none is attached
    SCHEDULE_NEEDS_BYPASS = "schedule_needs_bypass"
    SCHEDULE_NEEDS_PLATFORM_MODE = "schedule_needs_platform_mode"


@dataclass(frozen=True, slots=True)
class PatcherVerdict:
    """The answer with its reason."""

    patcher: Patcher
    reason: PatcherReason


def who_patches(
    *,
    patch_mode: PatchMode,
    is_bypassing: bool,
    has_schedule: bool,
    is_portal_in_charge: bool,
    is_automatic_on: bool,
    has_agent: bool = True,
) -> PatcherVerdict:
    """Decide who patches.

    `is_bypassing`: bypassPlatformSafetyChecksOnUserSchedule. `is_portal_in_charge`: the platform behind the connection
    orchestrates nothing itself (Azure Stack HCI, the simulator). `is_automatic_on`: the connection's switch for automatic
    patching by this portal; where the platform is in charge it says nothing. Source: the behaviour matrix of Azure's prerequisites
    for schedules, whose bypass flag binds connections on which Azure is in charge.
    """
    if patch_mode is PatchMode.AUTOMATIC_BY_OS:
        reason = PatcherReason.SCHEDULE_NEEDS_PLATFORM_MODE if has_schedule else PatcherReason.WINDOWS_AUTOMATIC_UPDATES
        return PatcherVerdict(Patcher.GUEST_OS, reason)
    if not has_agent:
        return PatcherVerdict(Patcher.NOBODY, PatcherReason.NO_AGENT)
    is_platform_mode = patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM
    if has_schedule:
        if not is_portal_in_charge and not is_platform_mode:
            return PatcherVerdict(Patcher.NOBODY, PatcherReason.SCHEDULE_NEEDS_PLATFORM_MODE)
        if not is_portal_in_charge and not is_bypassing:
            return PatcherVerdict(Patcher.NOBODY, PatcherReason.SCHEDULE_NEEDS_BYPASS)
        return PatcherVerdict(Patcher.PORTAL_BY_SCHEDULE, PatcherReason.SCHEDULE_ATTACHED)
    if not is_platform_mode:
        return PatcherVerdict(Patcher.NOBODY, PatcherReason.MANUAL_UPDATES)
    if is_bypassing:
        return PatcherVerdict(Patcher.NOBODY, PatcherReason.SCHEDULE_MISSING)
    if not is_portal_in_charge:
        return PatcherVerdict(Patcher.PLATFORM, PatcherReason.AUTOMATIC_GUEST_PATCHING)
    if not is_automatic_on:
        return PatcherVerdict(Patcher.NOBODY, PatcherReason.AUTOMATIC_SWITCHED_OFF)
    return PatcherVerdict(Patcher.PORTAL_AUTOMATICALLY, PatcherReason.AUTOMATIC_GUEST_PATCHING)
