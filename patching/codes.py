"""The codes that are stored, compared and put into words: errors, reasons of rollouts, events of a run.

A code is short text, `family.word`. It is stored as it is, so a value never changes. The words are in `updates.texts`
(ERRORS, ROLLOUT_REASONS, EVENTS); tests/updates/test_texts.py holds that every code has them, and that no other file writes
a code as text of its own.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

MOST_CHARACTERS = 60  # what the columns that store a code hold


class Fault(StrEnum):
    """Where the cause of an error lies, so where somebody has to look."""

    MACHINE = "machine"  # in the VM: its Windows, its agent, its updates
    CONNECTION = "connection"  # between the portal and the other side: the answer to a call was lost
    PORTAL = "portal"  # in this portal: its workers, its version, its log
    PERSON = "person"  # in the request: the plan, a missing role, a conflict with what was asked before
    OTHER_SIDE = "other_side"  # in the platform that carries out the work (Azure, Windows Update)


class ErrorCode(StrEnum):
    """Why an operation, a request for one or a bulk request failed or was refused.

    `fault` says where the cause lies. `is_retryable`: the same request, sent again later, may succeed; otherwise it is final,
    and somebody has to change something first.
    """

    fault: Fault
    is_retryable: bool

    def __new__(cls, value: str, fault: Fault, is_retryable: bool) -> Self:
        """Make a member from its value and its two facts."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.fault = fault
        member.is_retryable = is_retryable
        return member

    # How a run ends (docs/rules.md, run outcome)
    WINDOW_EXCEEDED = "window.exceeded", Fault.PERSON, True
    PATCH_FAILED = "patch.failed", Fault.MACHINE, False
    REBOOT_FAILED = "reboot.failed", Fault.MACHINE, False
    REBOOT_REQUIRED = "reboot.required", Fault.PERSON, False
    ASSESSMENT_FAILED = "assessment.failed", Fault.MACHINE, True

    # What a connector tells
    CONNECTOR_UNREACHABLE = "connector.unreachable", Fault.MACHINE, True
    CONNECTOR_THROTTLED = "connector.throttled", Fault.OTHER_SIDE, True
    CONNECTOR_TIMEOUT = "connector.timeout", Fault.OTHER_SIDE, False
    CONNECTOR_GARBAGE = "connector.garbage", Fault.OTHER_SIDE, False
    AGENT_NOT_READY = "agent.not_ready", Fault.MACHINE, False
    HOTPATCH_VBS_OFF = "hotpatch.vbs_off", Fault.MACHINE, False
    HOTPATCH_EXTENSION_UNHEALTHY = "hotpatch.extension_unhealthy", Fault.MACHINE, False
    HOTPATCH_BASELINE_REQUIRED = "hotpatch.baseline_required", Fault.MACHINE, False
    VM_NOT_RUNNING = "vm.not_running", Fault.MACHINE, False
    VM_UNSUPPORTED = "vm.unsupported", Fault.MACHINE, False

    # What a platform tells
    VM_BUSY = "vm.busy", Fault.OTHER_SIDE, True
    OPERATION_LOST = "operation.lost", Fault.OTHER_SIDE, False

    # Why nothing can be sent through a connection
    CONNECTION_UNUSABLE = "connection.unusable", Fault.CONNECTION, True
    PERMISSION_MISSING = "permission.missing", Fault.CONNECTION, False

    # What the engine finds when no answer comes
    CONNECTOR_SILENT = "connector.silent", Fault.MACHINE, False
    START_UNCONFIRMED = "start.unconfirmed", Fault.CONNECTION, False

    # What the engine finds in its own record
    PAYLOAD_UNREADABLE = "payload.unreadable", Fault.PORTAL, False

    # Why a request is refused
    VM_GONE = "vm.gone", Fault.MACHINE, False
    VM_AWAITING_ASSESSMENT = "vm.awaiting_assessment", Fault.MACHINE, False
    CONFLICT_INSTALLATION_OPEN = "conflict.installation_open", Fault.PERSON, True
    FREEZE_HELD = "freeze.held", Fault.PERSON, True
    VM_NOT_ASSESSED = "vm.not_assessed", Fault.MACHINE, False
    PLAN_NOTHING_TO_DO = "plan.nothing_to_do", Fault.PERSON, False
    PLAN_CHANGED = "plan.changed", Fault.MACHINE, True
    REQUEST_ID_TAKEN = "request.id_taken", Fault.PERSON, False
    ROLE_MISSING = "role.missing", Fault.PERSON, False
    ROLLBACK_UNKNOWN_STATE = "rollback.unknown_state", Fault.MACHINE, False
    ROLLBACK_NO_EARLIER_BASELINE = "rollback.no_earlier_baseline", Fault.MACHINE, False
    ROLLBACK_NOT_SUPPORTED = "rollback.not_supported", Fault.CONNECTION, False

    RESTART_NOT_SUPPORTED = "restart.not_supported", Fault.CONNECTION, False
    RESTART_UNKNOWN_STATE = "restart.unknown_state", Fault.MACHINE, False
    RESTART_NOT_NEEDED = "restart.not_needed", Fault.PERSON, False
    RESTART_UPDATES_FIRST = "restart.updates_first", Fault.PERSON, False

    # How a change of settings ended
    SETTINGS_NOT_TAKEN = "settings.not_taken", Fault.MACHINE, False

    # Why a bulk request stopped before every machine was asked
    BULK_FAILED = "bulk.failed", Fault.PORTAL, True
    BULK_CANCELLED = "bulk.cancelled", Fault.PERSON, False
    BULK_OUTDATED = "bulk.outdated", Fault.PORTAL, True

    # Any code that is none of these
    UNKNOWN = "error.unknown", Fault.OTHER_SIDE, False

    @classmethod
    def of(cls, code: str) -> ErrorCode:
        """Find the member of a stored code; UNKNOWN for one that a connector made up, or that a later version wrote."""
        return next((member for member in cls if member == code), cls.UNKNOWN)


class RolloutReason(StrEnum):
    """Why a rollout waits or stopped, or why one of its machines was left out, waits or counts as failed.

    A machine that failed by its own run has that run's `ErrorCode` instead.
    """

    BUDGET_USED = "rollout.budget_used"
    PAUSED_BY_PERSON = "rollout.paused_by_person"
    ENDED_BY_PERSON = "rollout.ended_by_person"
    OFF_PEAK = "rollout.off_peak"
    BLACKOUT = "rollout.blackout"
    FROZEN = "rollout.frozen"
    CONFIGURATION_UNREADABLE = "rollout.configuration_unreadable"
    UNREADABLE = "rollout.unreadable"
    BESIDE_OTHERS = "rollout.beside_others"
    SOAKING = "rollout.soaking"
    CATCHING_UP = "rollout.catching_up"
    RING_SOAKING = "rollout.ring_soaking"
    NOTHING_PROVEN = "rollout.nothing_proven"
    WINDOW_OVER = "rollout.window_over"
    ROLE_MISSING = "rollout.role_missing"
    OTHER_CLOCK = "rollout.other_clock"
    CONTRADICTED = "run.contradicted"
    NO_AGENT = "health.no_agent"
    PROBE_WAITING = "health.waiting"
    UNHEALTHY_BEFORE = "health.unhealthy_before"
    UNHEALTHY_AFTER = "health.unhealthy_after"


class EventCode(StrEnum):
    """What happened in a run, as its timeline tells it."""

    REQUESTED = "operation.requested"
    STARTING = "operation.starting"
    SETTINGS_REPLACED = "settings.replaced"
    STARTED = "operation.started"
    START_DEFERRED = "operation.start_deferred"
    RECOVERED = "operation.recovered"
    PATCH_INSTALLING = "patch.installing"
    PATCH_UNINSTALLING = "patch.uninstalling"
    REBOOTING = "operation.rebooting"
    REBOOTED = "operation.rebooted"
    FINISHED = "operation.finished"
    CANCELLED = "operation.cancelled"


def storable_code(raw: str) -> str:
    """Make a connector's code fit to be stored and shown: printable, at most 60 characters; UNKNOWN if nothing remains."""
    if 0 < len(raw) <= MOST_CHARACTERS and raw.isprintable() and raw == raw.strip():
        return raw
    printable = "".join(character for character in raw if character.isprintable()).strip()
    return printable[:MOST_CHARACTERS].rstrip() or ErrorCode.UNKNOWN.value
