"""How a run ends: the window's arithmetic, the status, and whether a later look confirms it (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from patching.codes import ErrorCode
from patching.identity import is_same_update
from patching.terms import (
    Classification,
    Patch,
    RebootSetting,
    RebootStatus,
    RunStatus,
    Verification,
)

MINUTES_PER_UPDATE = 10
MINUTES_PER_SERVICE_PACK = 15
MINUTES_FOR_REBOOT = 10


def minutes_for(patch: Patch) -> int:
    """The average minutes that an update takes, by its class."""
    if patch.classification is Classification.SERVICE_PACK:
        return MINUTES_PER_SERVICE_PACK
    return MINUTES_PER_UPDATE


def fits(elapsed: timedelta, patch: Patch, maximum_duration: timedelta) -> bool:
    """Whether an update may still be started: its average time and the reboot's must be left."""
    needed = timedelta(minutes=minutes_for(patch) + MINUTES_FOR_REBOOT)
    return elapsed + needed <= maximum_duration


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What happened in a run, as far as its status depends on it."""

    has_failed_patch: bool = False
    has_pending_patch: bool = False
    is_assessment_failed: bool = False
    is_reboot_needed: bool = False
    has_reboot_failed: bool = False
    reboot_setting: RebootSetting = RebootSetting.IF_REQUIRED


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ends. `error_code` is a message id, empty where there is nothing to explain."""

    status: RunStatus
    reboot_status: RebootStatus
    is_maintenance_window_exceeded: bool
    error_code: str = ""


def judge_run(facts: RunFacts) -> RunOutcome:
    """Judge a run; the first failure that applies names the error, in the order of `docs/rules.md`."""
    reboot = _reboot_status(facts)
    for applies, code in (
        (facts.is_assessment_failed, ErrorCode.ASSESSMENT_FAILED),
        (facts.has_failed_patch, ErrorCode.PATCH_FAILED),
        (facts.has_reboot_failed, ErrorCode.REBOOT_FAILED),
        (facts.has_pending_patch, ErrorCode.WINDOW_EXCEEDED),
    ):
        if applies:
            return RunOutcome(RunStatus.FAILED, reboot, facts.has_pending_patch, code)
    if reboot is RebootStatus.REQUIRED:
        return RunOutcome(RunStatus.COMPLETED_WITH_WARNINGS, reboot, False, ErrorCode.REBOOT_REQUIRED)
    return RunOutcome(RunStatus.SUCCEEDED, reboot, False)


def _reboot_status(facts: RunFacts) -> RebootStatus:
    if facts.has_reboot_failed:
        return RebootStatus.FAILED
    if facts.reboot_setting is RebootSetting.ALWAYS:
        return RebootStatus.COMPLETED
    if not facts.is_reboot_needed:
        return RebootStatus.NOT_NEEDED
    if facts.reboot_setting is RebootSetting.NEVER:
        return RebootStatus.REQUIRED
    return RebootStatus.COMPLETED


# --- verified truth ----------------------------------------------------------------------------------------------

MSRT_KB = "890830"


def is_verifiable(patch: Patch) -> bool:
    """Whether a later look can contradict an installation: never for what comes anew every day or month."""
    return patch.classification is not Classification.DEFINITION and patch.kb_number != MSRT_KB


@dataclass(frozen=True, slots=True)
class ExpectedPatch:
    """A patch that a run reported as installed, with the build that it brings (empty: none known)."""

    patch: Patch
    build: str = ""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """Whether the run's report holds.

    `contradicted` are the patches that a later look still found missing; `expected_build` and `found_build` are filled
    where the build did not move as it should.
    """

    verification: Verification
    contradicted: tuple[Patch, ...] = ()
    expected_build: str = ""
    found_build: str = ""


def verify(
    reported: Sequence[ExpectedPatch],
    *,
    available_after: Iterable[Patch],
    build_after: str,
    is_reboot_outstanding: bool,
) -> VerificationResult:
    """Compare what a run reported as installed with a later assessment.

    The installed patches must be gone (another update id of the KB is another update), and the build at least the newest
    they bring; a reboot that is still outstanding explains an old build.
    """
    checked = [item for item in reported if is_verifiable(item.patch)]
    if not checked:
        return VerificationResult(Verification.NOT_VERIFIABLE)
    offered = tuple(available_after)
    contradicted = tuple(item.patch for item in checked if any(is_same_update(item.patch, other) for other in offered))
    expected = max((item.build for item in checked if item.build), key=build_order, default="")
    is_build_behind = (
        bool(expected and build_after)
        and not is_reboot_outstanding
        and build_order(build_after) < build_order(expected)
    )
    if contradicted or is_build_behind:
        return VerificationResult(
            Verification.CONTRADICTED,
            contradicted,
            expected_build=expected if is_build_behind else "",
            found_build=build_after if is_build_behind else "",
        )
    return VerificationResult(Verification.CONFIRMED)


@lru_cache(maxsize=1_024)
def plain_build(text: str) -> str:
    """A build without the version that Windows puts before it: "10.0.20348.5074" is 20348.5074."""
    return text.strip().removeprefix("10.0.")


def build_order(build: str) -> tuple[int, ...]:
    """Sort key of a build such as 20348.5074."""
    return tuple(int(part) if part.isdecimal() else 0 for part in build.split("."))
