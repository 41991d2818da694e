"""An installation plan as JSON and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from patching.rollback import RollbackOrder
from patching.terms import Classification, InstallationPlan, RebootSetting


def plan_to_json(plan: InstallationPlan) -> dict[str, Any]:
    """The plan as JSON can hold it; durations in whole seconds, days in ISO 8601."""
    return {
        "classifications": sorted(plan.classifications),
        "kb_numbers_to_include": list(plan.kb_numbers_to_include),
        "kb_numbers_to_exclude": list(plan.kb_numbers_to_exclude),
        "exclude_kbs_requiring_reboot": plan.exclude_kbs_requiring_reboot,
        "max_patch_publish_date": plan.max_patch_publish_date.isoformat() if plan.max_patch_publish_date else None,
        "patch_name_masks_to_include": list(plan.patch_name_masks_to_include),
        "patch_name_masks_to_exclude": list(plan.patch_name_masks_to_exclude),
        "reboot_setting": plan.reboot_setting.value,
        "maximum_duration_seconds": int(plan.maximum_duration.total_seconds()),
        "guard_overrides": list(plan.guard_overrides),
    }


def plan_from_json(document: Mapping[str, Any]) -> InstallationPlan:
    """The plan that `plan_to_json` wrote."""
    published = document["max_patch_publish_date"]
    return InstallationPlan(
        classifications=frozenset(Classification(name) for name in document["classifications"]),
        kb_numbers_to_include=tuple(document["kb_numbers_to_include"]),
        kb_numbers_to_exclude=tuple(document["kb_numbers_to_exclude"]),
        exclude_kbs_requiring_reboot=bool(document["exclude_kbs_requiring_reboot"]),
        max_patch_publish_date=date.fromisoformat(published) if published else None,
        patch_name_masks_to_include=tuple(document["patch_name_masks_to_include"]),
        patch_name_masks_to_exclude=tuple(document["patch_name_masks_to_exclude"]),
        reboot_setting=RebootSetting(document["reboot_setting"]),
        maximum_duration=timedelta(seconds=document["maximum_duration_seconds"]),
        guard_overrides=tuple(document["guard_overrides"]),
    )


def order_to_json(order: RollbackOrder) -> dict[str, Any]:
    """The order of a rollback as JSON can hold it."""
    return {
        "uninstall_kbs": list(order.uninstall_kbs),
        "target_kb": order.target_kb,
        "target_build": order.target_build,
        "must_install_target": order.must_install_target,
    }


def order_from_json(document: Mapping[str, Any]) -> RollbackOrder:
    """The order that `order_to_json` wrote."""
    return RollbackOrder(
        uninstall_kbs=tuple(document["uninstall_kbs"]),
        target_kb=str(document["target_kb"]),
        target_build=str(document["target_build"]),
        must_install_target=bool(document["must_install_target"]),
    )
