"""One operation: what it is doing, what it did, and cancelling it while it is queued."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from ui.http import PortalRequest
from ui.pages import path_looked_at, render_page
from ui.watching import keep_watching, watched
from updates.selectors.operation import load_operation, may_cancel, operation_or_404, split_watched
from updates.services.operations import cancel_operations

HTMX_STOP_POLLING = 286


@require_GET
def detail(request: PortalRequest, pk: UUID) -> HttpResponse:
    """The run, live while it runs."""
    page = load_operation(request.user, pk, now=timezone.now())
    context = {"vm": page.operation.vm, "page": page, "operation": page.operation}
    return render_page(request, "updates/operation.html", context, partials={"operation"})


@require_GET
def ended(request: PortalRequest) -> HttpResponse:
    """Which of the operations the reader waits for have ended, once; 286 tells htmx that there are no more to wait for."""
    waiting, news = split_watched(request.user, watched(request), seen_at=path_looked_at(request))
    status = 200 if waiting else HTMX_STOP_POLLING
    response = render_page(request, "updates/toasts.html", {"operations": news}, status=status)
    keep_watching(response, waiting)
    return response


@require_POST
def cancel(request: PortalRequest, pk: UUID) -> HttpResponse:
    """Cancel an operation that is still queued; what has started is left alone, and the page says so."""
    operation, access = operation_or_404(request.user, pk)
    if not may_cancel(operation, access):
        raise PermissionDenied
    if cancel_operations(operation_ids=[operation.pk], requested_by=request.user):
        messages.success(request, _("Cancelled. Nothing was done to the machine."))
    else:
        messages.warning(request, _("It has started already and cannot be cancelled any more."))
    return redirect("updates:operation", pk)
