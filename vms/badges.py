"""The colours and icons of what is told of machines and their connections."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from connectors.registry import Grade
from patching.terms import HotpatchStatus, HotpatchTrack, UpdateStatus
from ui.badges import UNKNOWN, Badge, register
from vms.choices import Need, PowerState

BADGES: dict[str, Mapping[Enum, Badge]] = {
    "need": {
        Need.NOTHING: Badge("success", "circle-check"),
        Need.UNSUPPORTED: Badge("neutral", "ban"),
        Need.OTHERS: Badge("neutral", "circle-arrow-down"),
        Need.UPDATES: Badge("neutral", "circle-arrow-down"),
        Need.ASSESSMENT: UNKNOWN,
        Need.INSTALLATION: Badge("warning", "circle-arrow-down"),
        Need.BASELINE: Badge("warning", "calendar-clock"),
        Need.REBOOT: Badge("warning", "rotate-cw"),
        Need.OVERDUE_BASELINE: Badge("danger", "calendar-clock"),
        Need.TRACK: Badge("danger", "triangle-alert"),
    },
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
    "power_state": {
        PowerState.RUNNING: Badge("success", "circle-play"),
        PowerState.STARTING: Badge("info", "circle-play"),
        PowerState.STOPPING: Badge("info", "circle-stop"),
        PowerState.STOPPED: Badge("neutral", "circle-stop"),
        PowerState.DEALLOCATING: Badge("info", "circle-stop"),
        PowerState.DEALLOCATED: Badge("neutral", "circle-stop"),
        PowerState.UNKNOWN: UNKNOWN,
    },
    "grade": {
        Grade.SIMULATED: Badge("info", "flask-conical"),
        Grade.PROTOCOL_PROVEN: Badge("neutral", "plug"),
        Grade.QUALIFIED: Badge("success", "shield-check"),
    },
}


def register_badges() -> None:
    """Let pages show them; the app does it when it is ready."""
    for kind, badges in BADGES.items():
        register(kind, badges)
