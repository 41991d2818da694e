"""What is sent: a plan and settings as ARM wants them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from patching.enrolment import FEATURE, SubscriptionRequest
from patching.terms import InstallationPlan, PatchMode, PatchSettings


def installation_body(plan: InstallationPlan, *, held: Collection[str] = ()) -> dict[str, Any]:
    """The body of installPatches. `held`: KBs that the hotpatch guard leaves out, besides those of the plan.

    KBs are sent with their letters: Azure refuses bare digits.
    """
    left_out = dict.fromkeys((*plan.kb_numbers_to_exclude, *sorted(held)))
    windows: dict[str, Any] = {
        "classificationsToInclude": sorted(one.value for one in plan.classifications),
        "kbNumbersToInclude": [f"KB{number}" for number in plan.kb_numbers_to_include if number not in left_out],
        "kbNumbersToExclude": [f"KB{number}" for number in left_out],
        "excludeKbsRequiringReboot": plan.exclude_kbs_requiring_reboot,
    }
    if plan.max_patch_publish_date is not None:
        # Azure's publication instants are midnights; the whole day counts.
        windows["maxPatchPublishDate"] = f"{plan.max_patch_publish_date.isoformat()}T23:59:59Z"
    if plan.patch_name_masks_to_include:
        windows["patchNameMasksToInclude"] = list(plan.patch_name_masks_to_include)
    if plan.patch_name_masks_to_exclude:
        windows["patchNameMasksToExclude"] = list(plan.patch_name_masks_to_exclude)
    return {
        "maximumDuration": _duration(plan.maximum_duration),
        "rebootSetting": plan.reboot_setting.value,
        "windowsParameters": {name: value for name, value in windows.items() if value not in ([], False)},
    }


def is_anything_asked(body: dict[str, Any]) -> bool:
    """Whether the plan still names a class or a KB."""
    windows = body["windowsParameters"]
    return bool(windows.get("classificationsToInclude") or windows.get("kbNumbersToInclude"))


def _duration(length: timedelta) -> str:
    return f"PT{max(1, int(length.total_seconds() // 60))}M"


def settings_body(settings: PatchSettings) -> dict[str, Any]:
    """The body of the PATCH that gives a virtual machine these settings, and leaves everything else as it is."""
    patch: dict[str, Any] = {
        "patchMode": settings.patch_mode.value,
        "assessmentMode": settings.assessment_mode.value,
        "enableHotpatching": settings.enable_hotpatching,
    }
    if settings.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM:
        patch["automaticByPlatformSettings"] = {
            "rebootSetting": settings.reboot_setting.value,
            "bypassPlatformSafetyChecksOnUserSchedule": settings.bypass_platform_safety_checks,
        }
    windows = {
        "provisionVMAgent": settings.provision_vm_agent,
        "enableAutomaticUpdates": settings.enable_automatic_updates,
        "patchSettings": patch,
    }
    return {"properties": {"osProfile": {"windowsConfiguration": windows}}}


def arc_settings_body(settings: PatchSettings) -> dict[str, Any]:
    """The body of the PATCH that gives a machine outside of Azure these settings: it has these three, and no others."""
    patch = {
        "patchMode": settings.patch_mode.value,
        "assessmentMode": settings.assessment_mode.value,
        "enableHotpatching": settings.enable_hotpatching,
    }
    return {"properties": {"osProfile": {"windowsConfiguration": {"patchSettings": patch}}}}


def license_body(*, is_on: bool, location: str = "") -> dict[str, Any]:
    """The body that enrols a machine outside of Azure for hotpatches, or lets it leave. `location`: a profile is made there."""
    asked = SubscriptionRequest.ENABLE if is_on else SubscriptionRequest.DISABLE
    product = {
        "productType": "WindowsServer",
        "productFeatures": [{"name": FEATURE, "subscriptionStatus": asked.value}],
    }
    return ({"location": location} if location else {}) | {"properties": {"productProfile": product}}
