"""What a reader prefers: theme and time zone, kept in cookies (the language is Django's own cookie)."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypedDict
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest

THEME_COOKIE = "theme"
TIME_ZONE_COOKIE = "timezone"
COOKIE_AGE_SECONDS = 365 * 24 * 60 * 60


class Theme(StrEnum):
    """The looks on offer; without a choice the page follows the system."""

    LIGHT = "light"
    DARK = "dark"


class CookieOptions(TypedDict):
    """How a preference is kept."""

    max_age: int
    samesite: Literal["Lax"]
    secure: bool
    httponly: bool


def cookie_options() -> CookieOptions:
    """A year, for this site alone."""
    return {
        "max_age": COOKIE_AGE_SECONDS,
        "samesite": "Lax",
        "secure": settings.SESSION_COOKIE_SECURE,
        "httponly": True,
    }


def theme_of(request: HttpRequest) -> str:
    """The reader's theme, empty for the system's."""
    value = request.COOKIES.get(THEME_COOKIE, "")
    return value if value in set(Theme) else ""


def time_zone_of(request: HttpRequest) -> ZoneInfo:
    """The reader's time zone as the browser told it, else the portal's."""
    name = unquote(request.COOKIES.get(TIME_ZONE_COOKIE, ""))
    try:
        return ZoneInfo(name or settings.TIME_ZONE)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a hostile name is a ValueError
        return ZoneInfo(settings.TIME_ZONE)
