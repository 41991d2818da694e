"""The colour and the icon of a status value; its word comes from its choices. Colour is never alone."""

from __future__ import annotations

from dataclasses import dataclass

from patching.terms import (
    HotpatchStatus,
    HotpatchTrack,
    InstallationState,
    OperationState,
    RebootBehavior,
    RebootStatus,
    UpdateStatus,
    Verification,
)


@dataclass(frozen=True, slots=True)
class Badge:
    """A tone (success, warning, danger, info, neutral) and an icon's name."""

    tone: str
    icon: str


UNKNOWN = Badge("neutral", "circle-question-mark")
BADGES: dict[str, dict[str, Badge]] = {
    "update_status": {
        UpdateStatus.NO_UPDATES_AVAILABLE: Badge("success", "circle-check"),
        UpdateStatus.UPDATES_AVAILABLE: Badge("warning", "circle-arrow-down"),
        UpdateStatus.REBOOT_REQUIRED: Badge("warning", "rotate-cw"),
        UpdateStatus.NO_UPDATES_DATA: UNKNOWN,
        UpdateStatus.UNSUPPORTED: Badge("neutral", "ban"),
    },
    "hotpatch_status": {
        HotpatchStatus.ENABLED: Badge("success", "circle-check"),
        HotpatchStatus.DISABLED: Badge("neutral", "circle-minus"),
        HotpatchStatus.NOT_AVAILABLE: Badge("neutral", "ban"),
        HotpatchStatus.PENDING_EVALUATION: Badge("info", "clock"),
    },
    "hotpatch_track": {
        HotpatchTrack.ON_TRACK: Badge("success", "circle-check"),
        HotpatchTrack.ON_TRACK_AS_FAR_AS_KNOWN: Badge("neutral", "circle-check"),
        HotpatchTrack.BASELINE_DUE: Badge("warning", "calendar-clock"),
        HotpatchTrack.BASELINE_OVERDUE: Badge("danger", "calendar-clock"),
        HotpatchTrack.WAITS_FOR_REBOOT: Badge("warning", "calendar-clock"),
        HotpatchTrack.OFF_TRACK_SINCE_KB: Badge("danger", "triangle-alert"),
        HotpatchTrack.NOT_ON_TRAIN: Badge("neutral", "circle-minus"),
        HotpatchTrack.NEWER_THAN_CATALOGUE: UNKNOWN,
        HotpatchTrack.UNKNOWN: UNKNOWN,
    },
    "member_state": {
        "waiting": Badge("neutral", "hourglass"),
        "started": Badge("info", "loader-circle"),
        "succeeded": Badge("success", "circle-check"),
        "failed": Badge("danger", "circle-x"),
        "skipped": Badge("neutral", "circle-minus"),
        "catching_up": Badge("info", "clock"),
    },
    "rollout_state": {
        "running": Badge("info", "loader-circle"),
        "paused": Badge("warning", "circle-pause"),
        "finished": Badge("success", "circle-check"),
        "ended": Badge("neutral", "circle-stop"),
    },
    "operation_state": {
        OperationState.QUEUED: Badge("neutral", "clock"),
        OperationState.STARTING: Badge("info", "loader-circle"),
        OperationState.IN_PROGRESS: Badge("info", "loader-circle"),
        OperationState.REBOOTING: Badge("info", "rotate-cw"),
        OperationState.SUCCEEDED: Badge("success", "circle-check"),
        OperationState.COMPLETED_WITH_WARNINGS: Badge("warning", "triangle-alert"),
        OperationState.FAILED: Badge("danger", "circle-x"),
        OperationState.CANCELLED: Badge("neutral", "ban"),
    },
    "installation_state": {
        InstallationState.UNKNOWN: UNKNOWN,
        InstallationState.INSTALLED: Badge("success", "circle-check"),
        InstallationState.FAILED: Badge("danger", "circle-x"),
        InstallationState.EXCLUDED: Badge("neutral", "ban"),
        InstallationState.NOT_SELECTED: Badge("neutral", "circle-minus"),
        InstallationState.PENDING: Badge("warning", "clock"),
    },
    "reboot_behavior": {
        RebootBehavior.UNKNOWN: UNKNOWN,
        RebootBehavior.NEVER_REBOOTS: Badge("success", "zap"),
        RebootBehavior.ALWAYS_REQUIRES_REBOOT: Badge("warning", "rotate-cw"),
        RebootBehavior.CAN_REQUEST_REBOOT: Badge("neutral", "rotate-cw"),
    },
    "reboot_status": {
        RebootStatus.UNKNOWN: UNKNOWN,
        RebootStatus.NOT_NEEDED: Badge("success", "zap"),
        RebootStatus.REQUIRED: Badge("warning", "rotate-cw"),
        RebootStatus.STARTED: Badge("info", "rotate-cw"),
        RebootStatus.FAILED: Badge("danger", "circle-x"),
        RebootStatus.COMPLETED: Badge("success", "circle-check"),
    },
    "verification": {
        Verification.PENDING: Badge("neutral", "clock"),
        Verification.CONFIRMED: Badge("success", "shield-check"),
        Verification.CONTRADICTED: Badge("danger", "shield-alert"),
        Verification.NOT_VERIFIABLE: UNKNOWN,
    },
    "grade": {
        "simulated": Badge("info", "flask-conical"),
        "protocol_proven": Badge("neutral", "plug"),
        "qualified": Badge("success", "shield-check"),
    },
    "power_state": {
        "running": Badge("success", "circle-play"),
        "stopped": Badge("neutral", "circle-stop"),
        "deallocated": Badge("neutral", "circle-stop"),
    },
}


def badge_of(kind: str, value: str) -> Badge:
    """The badge of a value; what has none of its own is unknown."""
    return BADGES[kind].get(value, UNKNOWN)
