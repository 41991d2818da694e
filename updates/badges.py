"""The colours and icons of updates, operations and rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from patching.freezes import FreezeState
from patching.terms import InstallationState, OperationState, RebootBehavior, RebootStatus, Verification
from ui.badges import UNKNOWN, Badge, register
from updates.models import MemberState, RolloutState

BADGES: dict[str, Mapping[Enum, Badge]] = {
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
    "member_state": {
        MemberState.WAITING: Badge("neutral", "hourglass"),
        MemberState.STARTED: Badge("info", "loader-circle"),
        MemberState.SUCCEEDED: Badge("success", "circle-check"),
        MemberState.FAILED: Badge("danger", "circle-x"),
        MemberState.SKIPPED: Badge("neutral", "circle-minus"),
        MemberState.CATCHING_UP: Badge("info", "clock"),
    },
    "freeze_state": {
        FreezeState.HOLDS: Badge("info", "snowflake"),
        FreezeState.AHEAD: Badge("neutral", "clock"),
        FreezeState.OVER: Badge("neutral", "circle-check"),
        FreezeState.ENDED: Badge("neutral", "circle-stop"),
    },
    "rollout_state": {
        RolloutState.RUNNING: Badge("info", "loader-circle"),
        RolloutState.PAUSED: Badge("warning", "circle-pause"),
        RolloutState.FINISHED: Badge("success", "circle-check"),
        RolloutState.ENDED: Badge("neutral", "circle-stop"),
    },
}


def register_badges() -> None:
    """Let pages show them; the app does it when it is ready."""
    for kind, badges in BADGES.items():
        register(kind, badges)
