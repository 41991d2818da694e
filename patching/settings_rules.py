"""Which patch settings go together, and which may follow which (docs/rules.md; Azure's own refusals)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from patching.eligibility import Eligibility, EligibilityVerdict
from patching.terms import AssessmentMode, PatchMode, PatchSettings, Platform


class SettingsProblem(StrEnum):
    """What is wrong with patch settings, in our words."""

    HOTPATCH_NOT_AVAILABLE = "hotpatch_not_available"
    HOTPATCH_NEEDS_AGENT = "hotpatch_needs_agent"
    HOTPATCH_NEEDS_PLATFORM_MODE = "hotpatch_needs_platform_mode"
    HOTPATCH_NEEDS_SAFETY_CHECKS = "hotpatch_needs_safety_checks"
    PLATFORM_MODE_NEEDS_AGENT = "platform_mode_needs_agent"
    PLATFORM_ASSESSMENT_NEEDS_AGENT = "platform_assessment_needs_agent"
    MANUAL_NEEDS_AUTOMATIC_UPDATES_OFF = "manual_needs_automatic_updates_off"
    OS_MODE_NEEDS_AUTOMATIC_UPDATES_ON = "os_mode_needs_automatic_updates_on"
    BYPASS_NEEDS_PLATFORM_MODE = "bypass_needs_platform_mode"
    AUTOMATIC_UPDATES_FIXED_AT_CREATION = "automatic_updates_fixed_at_creation"
    NO_WAY_BETWEEN_OS_AND_MANUAL = "no_way_between_os_and_manual"


ARM_CODE = "InvalidParameter"
_TARGET = "windowsConfiguration"
_TARGETS = {
    SettingsProblem.HOTPATCH_NOT_AVAILABLE: f"{_TARGET}.patchSettings.enableHotpatching",
    SettingsProblem.HOTPATCH_NEEDS_AGENT: f"{_TARGET}.patchSettings.enableHotpatching",
    SettingsProblem.HOTPATCH_NEEDS_PLATFORM_MODE: f"{_TARGET}.patchSettings.enableHotpatching",
    SettingsProblem.HOTPATCH_NEEDS_SAFETY_CHECKS: f"{_TARGET}.patchSettings.enableHotpatching",
    SettingsProblem.PLATFORM_MODE_NEEDS_AGENT: f"{_TARGET}.patchSettings.patchMode",
    SettingsProblem.PLATFORM_ASSESSMENT_NEEDS_AGENT: f"{_TARGET}.patchSettings.assessmentMode",
    SettingsProblem.MANUAL_NEEDS_AUTOMATIC_UPDATES_OFF: f"{_TARGET}.patchSettings.patchMode",
    SettingsProblem.OS_MODE_NEEDS_AUTOMATIC_UPDATES_ON: f"{_TARGET}.patchSettings.patchMode",
    SettingsProblem.BYPASS_NEEDS_PLATFORM_MODE: f"{_TARGET}.patchSettings.automaticByPlatformSettings",
    SettingsProblem.AUTOMATIC_UPDATES_FIXED_AT_CREATION: f"{_TARGET}.enableAutomaticUpdates",
    SettingsProblem.NO_WAY_BETWEEN_OS_AND_MANUAL: f"{_TARGET}.patchSettings.patchMode",
}


@dataclass(frozen=True, slots=True)
class SettingsViolation:
    """One thing that is wrong, with ARM's code and target."""

    problem: SettingsProblem

    @property
    def arm_code(self) -> str:
        """The error code that Azure answers with."""
        return ARM_CODE

    @property
    def arm_target(self) -> str:
        """The property that Azure names."""
        return _TARGETS[self.problem]


def judge_settings(
    target: PatchSettings,
    *,
    current: PatchSettings | None,
    eligibility: Eligibility,
    platform: Platform,
) -> tuple[SettingsViolation, ...]:
    """Judge a change (`current` None: a new VM) and return every violation, in the order of `docs/rules.md`.

    On Azure Stack HCI hotpatch is a reported fact and these rules do not apply. Outside of Azure it goes with no patch mode.
    """
    if platform is Platform.AZURE_STACK_HCI:
        return ()
    if eligibility.is_by_edition:
        is_refused = target.enable_hotpatching and eligibility.verdict is not EligibilityVerdict.ELIGIBLE
        return (SettingsViolation(SettingsProblem.HOTPATCH_NOT_AVAILABLE),) if is_refused else ()
    problems = [*_combination(target, eligibility)]
    if current is not None:
        problems += _transition(current, target)
    return tuple(SettingsViolation(problem) for problem in problems)


def _combination(target: PatchSettings, eligibility: Eligibility) -> list[SettingsProblem]:
    is_by_platform = target.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM
    hotpatch = target.enable_hotpatching
    agent = target.provision_vm_agent
    checks = (
        (
            SettingsProblem.HOTPATCH_NOT_AVAILABLE,
            hotpatch and eligibility.verdict is not EligibilityVerdict.ELIGIBLE,
        ),
        (SettingsProblem.HOTPATCH_NEEDS_AGENT, hotpatch and not agent),
        (SettingsProblem.HOTPATCH_NEEDS_PLATFORM_MODE, hotpatch and not is_by_platform),
        (
            SettingsProblem.HOTPATCH_NEEDS_SAFETY_CHECKS,
            hotpatch and target.bypass_platform_safety_checks,
        ),
        (SettingsProblem.PLATFORM_MODE_NEEDS_AGENT, is_by_platform and not agent),
        (
            SettingsProblem.PLATFORM_ASSESSMENT_NEEDS_AGENT,
            target.assessment_mode is AssessmentMode.AUTOMATIC_BY_PLATFORM and not agent,
        ),
        (
            SettingsProblem.MANUAL_NEEDS_AUTOMATIC_UPDATES_OFF,
            target.patch_mode is PatchMode.MANUAL and target.enable_automatic_updates,
        ),
        (
            SettingsProblem.OS_MODE_NEEDS_AUTOMATIC_UPDATES_ON,
            target.patch_mode is PatchMode.AUTOMATIC_BY_OS and not target.enable_automatic_updates,
        ),
        (
            SettingsProblem.BYPASS_NEEDS_PLATFORM_MODE,
            target.bypass_platform_safety_checks and not is_by_platform,
        ),
    )
    return [problem for problem, applies in checks if applies]


def _transition(current: PatchSettings, target: PatchSettings) -> list[SettingsProblem]:
    problems = []
    if current.enable_automatic_updates is not target.enable_automatic_updates:
        problems.append(SettingsProblem.AUTOMATIC_UPDATES_FIXED_AT_CREATION)
    if {current.patch_mode, target.patch_mode} == {PatchMode.AUTOMATIC_BY_OS, PatchMode.MANUAL}:
        problems.append(SettingsProblem.NO_WAY_BETWEEN_OS_AND_MANUAL)
    return problems
