"""The portal's own template tags: icons, badges, times, KB articles, fields. A builtin of every template."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from django import template
from django.forms import BoundField
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext
from lucide import _render_icon

from ui.badges import badge_of

register = template.Library()


# A list has hundreds of icons and badges, and a dozen different ones.
@register.simple_tag
@lru_cache(maxsize=512)
def icon(name: str, size: int = 16, css: str = "") -> SafeString:
    """An inline icon that screen readers skip; the word beside it says the same."""
    svg = _render_icon(str(name) + "", size, **{"aria-hidden": "true", "focusable": "false", "class": css + ""})
    return mark_safe(svg)  # noqa: S308 (lucide escapes attribute values; names are ours)


@register.simple_tag
def badge(kind: str, value: str, label: str) -> SafeString:
    """Icon + word in the status colour of a value, e.g. `{% badge "update_status" vm.update_status label %}`."""
    return _badge(kind, value, str(label))


@lru_cache(maxsize=1_024)
def _badge(kind: str, value: str, label: str) -> SafeString:
    look = badge_of(kind, value)
    spin = "spin" if look.icon == "loader-circle" else ""
    return format_html(
        '<span class="badge badge--{}">{}<span>{}</span></span>', look.tone, icon(look.icon, css=spin), label
    )


@register.simple_tag
def when(moment: datetime | None, empty: str = "–", *, seconds: bool = False) -> SafeString | str:
    """An instant in the reader's zone, to the minute or second; the exact instant in UTC on hover."""
    if moment is None:
        return empty
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-zone>{}</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S"),
        timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M"),
    )


@register.simple_tag
def when_in(moment: datetime, zone: ZoneInfo) -> SafeString:
    """An instant on the clock of a zone, its weekday with it; the exact instant in UTC on hover. Name the zone beside it."""
    exact, shown = moment.astimezone(UTC), moment.astimezone(zone)
    return format_html(
        '<time datetime="{}" title="{} UTC">{} {}</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S"),
        date_format(shown, "D", use_l10n=False),
        shown.strftime("%Y-%m-%d %H:%M"),
    )


@register.simple_tag
def kb(number: str) -> SafeString | str:
    """A KB article as people write it, with a link to Microsoft's page about it."""
    if not number:
        return "–"
    return format_html(
        '<a class="kb nowrap" href="https://support.microsoft.com/help/{}" rel="noreferrer external">KB{}</a>',
        number,
        number,
    )


@register.filter
def kb_text(number: str) -> str:
    """A KB article as people write it, without a link."""
    return f"KB{number}" if number else ""


@register.filter
def month(day: date | None) -> str:
    """The month of a day, as the reader's language writes it; empty without one."""
    return date_format(day, pgettext("format of a month", "Y-m")) if day else ""


@register.filter
def month_list(days: Iterable[date]) -> str:
    """The months of some days, one after the other."""
    return ", ".join(month(day) for day in days)


_KB = re.compile(r"KB\d+")


@register.filter
def kb_list(numbers: Iterable[str]) -> str:
    """KB articles, one after the other."""
    return ", ".join(kb_text(number) for number in numbers)


@register.filter
def keep_kbs(text: str) -> SafeString:
    """A text in which no KB article is broken over two lines."""
    return mark_safe(_KB.sub(r'<span class="nowrap">\g<0></span>', conditional_escape(text)))  # noqa: S308 (escaped)


@register.filter
def duration(value: timedelta | float | None) -> str:
    """A length of time in words people use: 45 s, 12 min, 2 h 5 min."""
    if value is None:
        return "–"
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 60:
        return _("%(count)s s") % {"count": max(seconds, 0)}
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return _("%(count)s min") % {"count": minutes}
    if not minutes:
        return _("%(count)s h") % {"count": hours}
    return _("%(hours)s h %(minutes)s min") % {"hours": hours, "minutes": minutes}


@register.filter
def minutes_of(count: int) -> str:
    """A number of minutes as a word."""
    return ngettext("%(count)s minute", "%(count)s minutes", count) % {"count": count}


@register.inclusion_tag("parts/field.html")
def field(bound: BoundField, css: str = "", *, says_errors: bool = True) -> dict[str, Any]:
    """A form's field with label, help and errors, wired for screen readers.

    `says_errors=False` is for pages that name what is wrong elsewhere.
    """
    return {"field": bound, "css": css, "says_errors": says_errors}


# Who says a name below also says the names after it: the first that is found counts.
_BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iPadOS",
    "Mac OS": "macOS",
    "Linux": "Linux",
}


@register.filter
def browser_words(user_agent: str) -> str:
    """Browser and system of a session, as people call them; what is unknown is shown as it was sent."""
    browser = next((name for sign, name in _BROWSERS.items() if sign in user_agent), "")
    system = next((name for sign, name in _SYSTEMS.items() if sign in user_agent), "")
    return " · ".join(part for part in (browser, system) if part) or user_agent[:60]
