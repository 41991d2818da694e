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
from django.template import Context
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from ui.badges import badge_of
from ui.icons import USUAL_SIZE, drawing_id

register = template.Library()


@register.simple_tag
@lru_cache(maxsize=512)
def icon(name: str, size: int = 16, css: str = "") -> SafeString:
    """An icon that screen readers skip; the word beside it says the same. Its drawing stands once on the page (`ui.icons`)."""
    attributes = f' class="{css}"' if css else ""
    if size != USUAL_SIZE:
        attributes += f' width="{size}" height="{size}"'
    return format_html('<svg{} aria-hidden=true><use href="#{}"/></svg>', mark_safe(attributes), drawing_id(name))  # noqa: S308 (names and sizes are ours)


# A list has hundreds of badges, and a dozen different ones.
@register.simple_tag
def badge(kind: str, value: str, label: str) -> SafeString:
    """Icon + word in the status colour of a value, e.g. `{% badge "update_status" vm.update_status label %}`."""
    return _badge(kind, value, str(label))


@lru_cache(maxsize=1_024)
def _badge(kind: str, value: str, label: str) -> SafeString:
    look = badge_of(kind, value)
    spin = "spin" if look.icon == "loader-circle" else ""
    return format_html('<span class="badge badge--{}">{}{}</span>', look.tone, icon(look.icon, css=spin), label)


@lru_cache(maxsize=1_024)
def badge_cell(kind: str, value: str, label: str, column: str = "") -> SafeString:
    """A cell of a grid that is a badge, without its end tag; `column`: the label of the narrow layout."""
    look = badge_of(kind, value)
    named = format_html(' data-label="{}"', column) if column else ""
    return format_html('<td class="{}"{}>{}{}', look.tone, named, icon(look.icon), label)


@register.simple_tag(takes_context=True)
def sort_head(context: Context, label: str, field: str, *, descends_first: bool = False, css: str = "") -> SafeString:
    """The head of a column that the grid can be sorted by: a link to the other direction, an arrow in the present one.

    The page says its order as `order`: the name of a field, or with a minus before it.
    """
    order = context["order"]
    other = f"-{field}" if order == field or (descends_first and order != f"-{field}") else field
    query = context["request"].GET.copy()
    query.pop("cursor", None)
    query["sort"] = other
    arrows = {field: ("ascending", "arrow-up"), f"-{field}": ("descending", "arrow-down")}
    direction, arrow = arrows.get(order, ("", ""))
    return format_html(
        '<th scope="col"{}{}><a href="?{}">{}{}</a></th>',
        format_html(' class="{}"', css) if css else "",
        format_html(' aria-sort="{}"', direction) if direction else "",
        query.urlencode(),
        label,
        icon(arrow, 14) if arrow else "",
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
def in_days(count: int) -> str:
    """How long until something, in whole days."""
    if count < 1:
        return _("within a day")
    return ngettext("in %(count)s day", "in %(count)s days", count) % {"count": count}


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
