"""Settings become words in templates: `{% load vms %}`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django import template
from django.utils.translation import gettext as _

from connectors.protocol import Capability
from connectors.registry import Grade
from patching.settings_rules import SettingsViolation
from patching.terms import PatchSettings
from vms.choices import ASSESSMENT_MODES, GRADES, PATCH_MODES, REBOOT_SETTINGS
from vms.import_pages import sync_of
from vms.models import Connection, VirtualMachine
from vms.regions import clock_of
from vms.services.settings import Refusal
from vms.texts import CAPABILITIES, REFUSALS, SETTING_LABELS, SETTINGS_PROBLEMS, Text

register = template.Library()
_WORDS = {
    "patch_mode": dict(PATCH_MODES),
    "assessment_mode": dict(ASSESSMENT_MODES),
    "reboot_setting": dict(REBOOT_SETTINGS),
}


def setting_words(name: str, value: Any) -> str:
    """The value of a setting in the operator's words."""
    if isinstance(value, bool):
        return _("On") if value else _("Off")
    text = value.value if isinstance(value, StrEnum) else str(value)
    return str(_WORDS.get(name, {}).get(text, text))


@register.filter
def grade_words(grade: Grade) -> str:
    """How real a connector is."""
    return str(dict(GRADES)[grade.value])


@register.filter
def capability_words(capability: Capability) -> Text:
    """What a connector can do."""
    return CAPABILITIES[capability]


def setting_lines(before: PatchSettings, after: PatchSettings, names: tuple[str, ...]) -> list[tuple[Text, str, str]]:
    """Label, old and new value of each of these settings."""
    return [
        (SETTING_LABELS[name], setting_words(name, getattr(before, name)), setting_words(name, getattr(after, name)))
        for name in names
    ]


@register.filter
def change_lines(outcome: Any) -> list[tuple[Text, str, str]]:
    """What changes on one machine: of anything with `before`, `after` and `differing`."""
    return setting_lines(outcome.before, outcome.after, outcome.differing)


@register.filter
def clock_words(vm: VirtualMachine) -> str:
    """The clock that off-peak hours of this VM are meant on, and whose it is; or that nobody knows it."""
    clock = clock_of(vm.time_zone, vm.location)
    if clock is None:
        return _(
            "Not known: neither its time zone nor its region says it. Nothing is patched off-peak here until it is set."
        )
    if clock == clock_of(vm.time_zone, ""):
        return _("%(zone)s (its own time zone)") % {"zone": clock.key}
    return _("%(zone)s (that of its region)") % {"zone": clock.key}


@register.filter
def lacks_clock(vm: VirtualMachine) -> bool:
    """Whether nobody knows this VM's clock."""
    return clock_of(vm.time_zone, vm.location) is None


@register.filter
def violation_words(violation: SettingsViolation) -> Text:
    """Why the rules refuse."""
    return SETTINGS_PROBLEMS[violation.problem]


@register.filter
def refusal_words(refusal: Refusal) -> Text:
    """Why a machine is left alone."""
    return REFUSALS[refusal.value]


@register.inclusion_tag("vms/inventory_sync.html", takes_context=True)
def inventory_sync(context: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """When the connection was asked for its machines, and the button that asks now (two queries)."""
    return {"connection": connection, "sync": sync_of(connection), "csrf_token": context.get("csrf_token")}
