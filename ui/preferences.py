"""What a reader prefers: language, theme, density and time zone, carried in cookies.

Pages need no query for them, and they work before sign-in. What a user has chosen is stored elsewhere and
put into these cookies at sign-in.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypedDict
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

THEME_COOKIE = "theme"
DENSITY_COOKIE = "density"
TIME_ZONE_COOKIE = "timezone"  # what the browser tells (static/js/portal.js)
CHOSEN_TIME_ZONE_COOKIE = "timezone_chosen"
COOKIE_AGE_SECONDS = 365 * 24 * 60 * 60


class Theme(StrEnum):
    """The looks on offer; without a choice the page follows the system."""

    LIGHT = "light"
    DARK = "dark"


class Density(StrEnum):
    """How close the rows of a grid stand; without a choice they are comfortable."""

    COMPACT = "compact"


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


def remember(response: HttpResponseBase, name: str, value: str) -> None:
    """Let the browser keep this preference; empty: forget it."""
    if value:
        response.set_cookie(name, value, **cookie_options())
    else:
        response.delete_cookie(name, samesite="Lax")


def theme_of(request: HttpRequest) -> str:
    """The reader's theme, empty for the system's."""
    value = request.COOKIES.get(THEME_COOKIE, "")
    return value if value in set(Theme) else ""


def density_of(request: HttpRequest) -> str:
    """The reader's density, empty for comfortable."""
    value = request.COOKIES.get(DENSITY_COOKIE, "")
    return value if value in set(Density) else ""


def time_zone_of(request: HttpRequest) -> ZoneInfo:
    """The time zone that the reader chose, else as the browser told it, else the portal's."""
    for name in (request.COOKIES.get(CHOSEN_TIME_ZONE_COOKIE, ""), request.COOKIES.get(TIME_ZONE_COOKIE, "")):
        try:
            if name:
                return ZoneInfo(unquote(name))
        except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a hostile name is a ValueError
            continue
    return ZoneInfo(settings.TIME_ZONE)
