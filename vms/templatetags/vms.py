"""Settings become words in templates: `{% load vms %}`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from connectors.protocol import Capability
from connectors.registry import is_everything_simulated
from patching.settings_rules import SettingsViolation
from patching.terms import PatchSettings, UpdateStatus
from ui.templatetags.portal import badge, badge_cell, icon
from vms.choices import ASSESSMENT_MODES, PATCH_MODES, REBOOT_SETTINGS
from vms.import_pages import sync_of
from vms.models import Connection, VirtualMachine
from vms.regions import clock_of
from vms.selectors import ListedVm
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


@register.simple_tag
def grade(connection: Connection | None) -> SafeString:
    """A badge: how real what lies behind a connection is, and since when that is proven. Nothing where nobody knows."""
    if connection is None or connection.grade is None:
        return SafeString("")
    return badge("grade", connection.grade.value, connection.grade_words)


@register.simple_tag
def only_simulated() -> bool:
    """Whether no kind of connector speaks to anything real, so that all that any page shows is simulated."""
    return is_everything_simulated()


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


# A row of the list. As nodes of a template fifty of them took half of the page's time. It is as short as HTML allows: end
# tags that may be left out are, the columns get their look by their place (.grid--vms), and only what does not explain
# itself in the narrow layout has a label.
_ROW = (
    '<tr>%s<th scope="row"><a href="%s">%s</a>%s%s<td data-label="%s">%s<td data-label="%s">%s%s%s'
    "<td>%s<td>%s<td>%s<td>%s<td>%s"
)
_TICK = '<td><input type="checkbox" name="vm" value="%s" aria-label="%s">'


@register.simple_tag
def vm_rows(vms: Sequence[ListedVm], may_tick: bool) -> SafeString:
    """The rows of the list, with a box to tick where the reader may act."""
    labels = [_(label) for label in ("Critical and Security", "Other", "Hotpatch status")]
    return mark_safe("".join([_html_of(vm, labels, may_tick=may_tick) for vm in vms]))  # noqa: S308 (each value is escaped)


def _unlike_wanted() -> SafeString:
    """The mark of a machine that reports other settings than it shall have."""
    return format_html('<span class="reason">{}{}</span>', icon("sliders-horizontal"), _("Settings not as wanted"))


def _html_of(vm: ListedVm, labels: Sequence[str], *, may_tick: bool) -> str:
    critical_label, other_label, hotpatch_label = labels
    name, is_unknown = escape(vm.name), vm.update_status == UpdateStatus.NO_UPDATES_DATA
    return _ROW % (
        _TICK % (vm.id, name) if may_tick else "",
        reverse("updates:blade", args=(vm.id,)),
        name,
        _unlike_wanted() if vm.desired_settings else "",
        badge_cell("update_status", vm.update_status, vm.update_status_label),
        escape(critical_label),
        vm.critical_and_security_count or ("–" if is_unknown else 0),
        escape(other_label),
        vm.other_count or ("–" if is_unknown else 0),
        badge_cell("hotpatch_status", vm.hotpatch_status, vm.hotpatch_status_label, hotpatch_label),
        badge_cell("hotpatch_track", vm.hotpatch_track, vm.hotpatch_track_label),
        escape(vm.power_state_label),
        escape(vm.resource_group),
        escape(vm.patcher_label),
        escape(vm.location),
        escape(vm.connection),
    )


@register.filter
def settings_lines(settings: PatchSettings) -> list[tuple[Text, str]]:
    """Label and value of each setting."""
    names = [field.name for field in fields(PatchSettings)]
    return [(SETTING_LABELS[name], setting_words(name, getattr(settings, name))) for name in names]


@register.filter
def difference_lines(vm: VirtualMachine) -> list[tuple[Text, str, str]]:
    """Label, reported and wanted value of each setting of this VM that is not as wanted."""
    names = (field.name for field in fields(PatchSettings))
    reported, wanted = vm.patch_settings, vm.desired
    return setting_lines(
        reported, wanted, tuple(name for name in names if getattr(reported, name) != getattr(wanted, name))
    )


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
