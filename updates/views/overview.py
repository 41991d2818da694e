"""The overview of the fleet, the portal's home."""

from __future__ import annotations

from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from updates.overview_pictures import pictures_of
from updates.selectors.overview import filters_of, load_overview
from vms.models import Grants
from vms.selectors import ListTooSlowError


@require_GET
@in_a_tidy_address
def overview(request: PortalRequest) -> HttpResponse:
    """What needs a person, where the machines stand, what is coming and what runs; the scope is in the address."""
    grants = Grants.of(request.user).by_group()
    filters = filters_of(grants, request.GET.dict())
    try:
        page = load_overview(request.user, grants, filters, now=timezone.now())
    except ListTooSlowError:
        page = None
    context = {"filters": filters, "page": page, "pictures": pictures_of(page) if page is not None else None}
    return render_page(request, "updates/overview_fleet.html", context)
