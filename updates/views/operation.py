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
from ui.pages import render_page
from updates.selectors.operation import load_operation, operation_or_404
from updates.services.operations import cancel_operations


@require_GET
def detail(request: PortalRequest, pk: UUID) -> HttpResponse:
    """The run, live while it runs."""
    page = load_operation(request.user, pk, now=timezone.now())
    context = {"vm": page.operation.vm, "page": page, "operation": page.operation}
    return render_page(request, "updates/operation.html", context, partials={"operation"})


@require_POST
def cancel(request: PortalRequest, pk: UUID) -> HttpResponse:
    """Cancel an operation that is still queued; what has started is left alone, and the page says so."""
    operation, access = operation_or_404(request.user, pk)
    if not access.may_operate:
        raise PermissionDenied
    if cancel_operations(operation_ids=[operation.pk], requested_by=request.user):
        messages.success(request, _("Cancelled. Nothing was done to the machine."))
    else:
        messages.warning(request, _("It has started already and cannot be cancelled any more."))
    return redirect("updates:operation", pk)
