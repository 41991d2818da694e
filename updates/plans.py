"""An installation plan, and what a review promised of one, as JSON and back, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, TypeVar

from patching.rollback import RollbackOrder
from patching.selection import RebootProspect, RunOutlook, RunWork
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


T = TypeVar("T")


class PlanError(ValueError):
    """What is kept is no plan; `entry` names the field that cannot be read."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"no plan: {entry}")
        self.entry = entry


def plan_from_json(document: Mapping[str, Any]) -> InstallationPlan:
    """The plan that `plan_to_json` wrote. Raises PlanError naming the first field that is missing or of another kind."""
    if not isinstance(document, Mapping):
        raise PlanError(str(document))
    return InstallationPlan(
        classifications=_read(document, "classifications", _classifications),
        kb_numbers_to_include=_read(document, "kb_numbers_to_include", _texts),
        kb_numbers_to_exclude=_read(document, "kb_numbers_to_exclude", _texts),
        exclude_kbs_requiring_reboot=_read(document, "exclude_kbs_requiring_reboot", _yes_or_no),
        max_patch_publish_date=_read(document, "max_patch_publish_date", _day_or_none),
        patch_name_masks_to_include=_read(document, "patch_name_masks_to_include", _texts),
        patch_name_masks_to_exclude=_read(document, "patch_name_masks_to_exclude", _texts),
        reboot_setting=_read(document, "reboot_setting", RebootSetting),
        maximum_duration=_read(document, "maximum_duration_seconds", _seconds),
        guard_overrides=_read(document, "guard_overrides", _texts),
    )


def _read(document: Mapping[str, Any], name: str, read: Callable[[Any], T]) -> T:
    try:
        return read(document[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PlanError(name) from None


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError(value)
    return tuple(value)


def _classifications(value: Any) -> frozenset[Classification]:
    return frozenset(Classification(name) for name in _texts(value))


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _day_or_none(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(value)


def _seconds(value: Any) -> timedelta:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(value)
    return timedelta(seconds=value)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a review said of some machines, and a person confirmed: the plan by name and what comes of it there.

    Without a plan nothing is started on them, and `code` is their answer.
    """

    plan: InstallationPlan | None = None
    outlook: RunOutlook = RunOutlook(RunWork.NOTHING, RebootProspect.NEVER)  # noqa: RUF009 (frozen)
    code: str = ""


def promise_to_json(promise: Promise) -> dict[str, Any]:
    """The promise as JSON can hold it."""
    if promise.plan is None:
        return {"code": promise.code}
    return {
        "plan": plan_to_json(promise.plan),
        "work": promise.outlook.work.value,
        "reboot": promise.outlook.reboot.value,
    }


def promise_from_json(document: Mapping[str, Any]) -> Promise:
    """The promise that `promise_to_json` wrote. Raises PlanError naming what is missing or of another kind."""
    if not isinstance(document, Mapping):
        raise PlanError(str(document))
    if "plan" not in document:
        return Promise(code=_read(document, "code", _text))
    outlook = RunOutlook(_read(document, "work", RunWork), _read(document, "reboot", RebootProspect))
    return Promise(plan_from_json(document["plan"]), outlook)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value


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
