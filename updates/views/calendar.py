"""The hotpatch calendar."""

from __future__ import annotations

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from ui.http import PortalRequest
from ui.pages import render_page
from updates.pictures import sample_train, train_of
from updates.selectors.calendar import load_calendar
from updates.selectors.freezes import visible_freezes


@require_GET
def calendar(request: PortalRequest) -> HttpResponse:
    """A year of a product line: the picture, and the cards below it."""
    now = timezone.now()
    shown = load_calendar(request.user, request.GET.dict(), now)
    freezes = visible_freezes(request.user, now=now)
    ahead = [row for row in freezes if row.is_open]
    context = {"calendar": shown, "train": train_of(shown, freezes), "freezes": ahead}
    return render_page(request, "updates/calendar.html", context)


@require_GET
def sample(request: PortalRequest) -> HttpResponse:
    """A year that never was, to learn the picture from."""
    return render_page(request, "updates/calendar_sample.html", {"train": sample_train()})
