"""Settings become words in templates: `{% load vms %}`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Any

from django import template
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from connectors.protocol import Capability
from patching.forecast import Outlook
from patching.settings_rules import SettingsViolation
from patching.terms import PatchSettings, UpdateStatus
from ui.badges import badge_of
from ui.templatetags.portal import badge, badge_cell, icon
from vms.choices import (
    ASSESSMENT_MODES,
    ATTENTION,
    NO_REBOOT,
    PATCH_MODES,
    REBOOT_NOT_KNOWN,
    REBOOT_SETTINGS,
    Column,
    Need,
)
from vms.import_pages import sync_of
from vms.models import Connection, VirtualMachine
from vms.regions import clock_of
from vms.selectors import ListedVm, VmPage
from vms.services.settings import Refusal
from vms.texts import (
    CAPABILITIES,
    CAUSES,
    HINDRANCES,
    NEEDS,
    NEEDS_COUNTED,
    REFUSALS,
    SETTING_LABELS,
    SETTINGS_PROBLEMS,
    Text,
)
from vms.ticks import PageTicks, Ticks

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


# The rows of the list. As nodes of a template fifty of them took half of the page's time. They are as short as HTML allows:
# end tags that may be left out are, and only what does not explain itself in the narrow layout has a label. `keep` stays
# there.
_TICK = '<td><input type=checkbox name="vm" value="%s" aria-label="%s"%s>'
Cell = Callable[[ListedVm], str]


@register.simple_tag
def vm_rows(vms: Sequence[ListedVm], columns: Sequence[Column], may_tick: bool, on: PageTicks) -> SafeString:
    """The rows of the list, with a check box where the reader may act. `on`: the machines that are ticked."""
    names = {column.name for column in columns}
    cells = [_cell_of(column, is_need_shown="need" in names) for column in columns]
    address = reverse("updates:blade", args=(0,)).rpartition("0")
    rows = []
    for vm in vms:
        name = escape(vm.name)
        state = " checked" if vm.id in on.ticked else "" if vm.id in on.loose else " disabled"
        tick = _TICK % (vm.id, name, state) if may_tick else ""
        group = "" if "resource_group" in names else f"<small>{escape(vm.resource_group)}</small>"
        differs = _unlike_wanted() if vm.desired_settings else ""
        link = f'<a href="{address[0]}{vm.id}{address[2]}">{name}</a>'
        rows.append(f'<tr>{tick}<th scope="row">{link}{group}{differs}{"".join([cell(vm) for cell in cells])}')
    return mark_safe("".join(rows))  # noqa: S308 (each value is escaped)


@register.simple_tag
def list_count(page: VmPage) -> str:
    """How many machines the list holds, as far as they are counted."""
    if not page.is_count_exact:
        return _("1,000+ virtual machines")
    return ngettext("%(count)s virtual machine", "%(count)s virtual machines", page.count) % {"count": page.count}


@register.simple_tag
def ticks_count(ticks: Ticks) -> str:
    """How many machines are selected, and how many of those that match are left out."""
    words = ngettext("%(count)s selected", "%(count)s selected", ticks.count) % {"count": f"{ticks.count:,}"}
    if not ticks.excepted:
        return words
    less = ngettext("all that match but %(count)s", "all that match but %(count)s", ticks.excepted)
    return f"{words} ({less % {'count': f'{ticks.excepted:,}'}})"


@register.filter
def grouped(count: int) -> str:
    """A number with its thousands apart."""
    return f"{count:,}"


def _unlike_wanted() -> SafeString:
    """The mark of a machine that reports other settings than it shall have."""
    return format_html('<span class="reason">{}{}</span>', icon("sliders-horizontal"), _("Settings not as wanted"))


def _cell_of(column: Column, *, is_need_shown: bool) -> Cell:
    """What makes a cell of this column, without its end tag, for the language that is active."""
    if column.name in _NUMBERS:
        return partial(_number, read=_NUMBERS[column.name], label=escape(column.label))
    if column.name == "assessed_at":
        return partial(_assessed, now=timezone.now())
    if column.name == "track" and is_need_shown:
        return _quiet_track
    return _CELLS.get(column.name) or partial(_text, read=_TEXTS[column.name])


_NUMBERS: dict[str, Callable[[ListedVm], int]] = {
    "critical": attrgetter("critical_and_security_count"),
    "other": attrgetter("other_count"),
}
_TEXTS: dict[str, Callable[[ListedVm], str | None]] = {
    "image_sku": attrgetter("image_sku"),
    "product_line": attrgetter("product_line_label"),
    "power_state": attrgetter("power_state_label"),
    "resource_group": attrgetter("resource_group"),
    "patcher": attrgetter("patcher_label"),
    "location": attrgetter("location"),
    "connection": attrgetter("connection"),
}


def _text(vm: ListedVm, read: Callable[[ListedVm], str | None]) -> str:
    return f"<td>{escape(read(vm) or '–')}"


def _number(vm: ListedVm, read: Callable[[ListedVm], int], label: str) -> str:
    is_unknown = vm.update_status == UpdateStatus.NO_UPDATES_DATA
    return f'<td class="number keep" data-label="{label}">{read(vm) or ("–" if is_unknown else 0)}'


def _need(vm: ListedVm) -> str:
    if vm.need < ATTENTION:
        return f'<td class="keep">{escape(_need_words(vm))}'
    look = badge_of("need", str(vm.need))
    return f'<td class="keep {look.tone}">{icon(look.icon)}{escape(_need_words(vm))}'


def _need_words(vm: ListedVm) -> str:
    """What the machine needs most, in one sentence."""
    if vm.need in NEEDS_COUNTED:
        count = vm.other_count if vm.need == Need.OTHERS else vm.critical_and_security_count
        return str(NEEDS_COUNTED[Need(vm.need)] % {"count": count})
    return str(NEEDS.get(vm.need, ""))


def _track(vm: ListedVm) -> str:
    return badge_cell("hotpatch_track", vm.hotpatch_track, vm.hotpatch_track_label)


def _quiet_track(vm: ListedVm) -> str:
    return f"<td class=keep>{escape(vm.hotpatch_track_label)}"


def _update_status(vm: ListedVm) -> str:
    if vm.update_status == UpdateStatus.UPDATES_AVAILABLE and vm.need < ATTENTION:
        return f"<td>{escape(vm.update_status_label)}"
    return badge_cell("update_status", vm.update_status, vm.update_status_label)


def _hotpatch_status(vm: ListedVm) -> str:
    return f"<td>{escape(vm.hotpatch_status_label)}"


def _tags(vm: ListedVm) -> str:
    tags = json.loads(vm.tags) if vm.tags else {}
    return (
        f"<td>{escape(', '.join(f'{name}={value}' if value else name for name, value in sorted(tags.items())) or '–')}"
    )


def _next_reboot(vm: ListedVm) -> str:
    """The month of the next reboot, and why; or that there is none by itself."""
    why = str(_WHY.get(vm.next_reboot_cause, ""))
    if vm.next_reboot == NO_REBOOT:
        month = _("Not by itself") if why else _("None in sight")
    elif vm.next_reboot == REBOOT_NOT_KNOWN:
        month = _("Not known")
    else:
        month = vm.next_reboot or "–"
    if vm.next_reboot_outlook == Outlook.MAY:
        month = _("%(month)s, perhaps") % {"month": month}
    return f"<td>{escape(month)}<small>{escape(why)}</small>" if why else f"<td>{escape(month)}"


_WHY: dict[str, Text] = {code.value: words for code, words in (*CAUSES.items(), *HINDRANCES.items())}
_CELLS: dict[str, Cell] = {
    "need": _need,
    "next_reboot": _next_reboot,
    "track": _track,
    "update_status": _update_status,
    "hotpatch_status": _hotpatch_status,
    "tags": _tags,
}
_A_WEEK = timedelta(days=7)


def _assessed(vm: ListedVm, now: datetime) -> str:
    """How long ago the machine was assessed, or on which day; the exact time on hover."""
    at = vm.assessed_at
    if at is None:
        never = _("never")  # xgettext does not look into f-strings
        return f"<td>{escape(never)}"
    age = max(now - at, timedelta())
    local = timezone.localtime(at)
    words = local.strftime("%Y-%m-%d") if age >= _A_WEEK else _ago(age)
    return f'<td><time title="{local:%Y-%m-%d %H:%M}">{escape(words)}</time>'


def _ago(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    if minutes < 60:
        return _("%(count)s min ago") % {"count": minutes}
    if minutes < 48 * 60:
        return _("%(count)s h ago") % {"count": minutes // 60}
    return _("%(count)s days ago") % {"count": minutes // (24 * 60)}


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
    """When the connection was asked for its machines, what it has, and the button that asks now (three queries)."""
    return {"connection": connection, "sync": sync_of(connection), "csrf_token": context.get("csrf_token")}
