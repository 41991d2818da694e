"""The hotpatch calendar."""

from __future__ import annotations

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from ui.http import PortalRequest
from ui.pages import render_page
from updates.selectors.calendar import load_calendar


@require_GET
def calendar(request: PortalRequest) -> HttpResponse:
    """A year of a product line."""
    context = {"calendar": load_calendar(request.GET.dict(), timezone.now())}
    return render_page(request, "updates/calendar.html", context)
