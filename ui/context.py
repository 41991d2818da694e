"""What every template may use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from ui.preferences import density_of, theme_of


def portal(request: HttpRequest) -> dict[str, Any]:
    """The reader's theme (empty: the system's) and density, the portal's version, and whether there is a demo to tour."""
    return {
        "theme": theme_of(request),
        "density": density_of(request),
        "portal_version": settings.VERSION,
        "has_demo": settings.HAS_DEMO,
    }
