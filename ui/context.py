"""What every template may use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from ui.preferences import density_of, theme_of
from ui.watching import WATCHING_COOKIE


def portal(request: HttpRequest) -> dict[str, Any]:
    """Theme (empty: the system's) and density, whether the reader waits for operations, version, whether there is a demo."""
    return {
        "theme": theme_of(request),
        "density": density_of(request),
        "is_watching": bool(request.COOKIES.get(WATCHING_COOKIE)),
        "portal_version": settings.VERSION,
        "has_demo": settings.HAS_DEMO,
    }
