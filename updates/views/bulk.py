"""Assess and install on many VMs: what is meant, what was answered, how far it is."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms.bulk import BulkWizard
from updates.forms.bulk_install import bulk_wizard, wizard_again
from updates.models import BulkRequest, Rollout
from updates.pictures import bar_of_bulk
from updates.selectors.again import load_again
from updates.selectors.bulk import asked_before, bulk_or_404, load_bulk
from updates.selectors.runs import asked_reason
from updates.services.bulk import cancel_bulk, request_bulk
from updates.services.rollouts import RolloutPlan, create_rollout
from updates.tasks import wake_up
from vms.choices import Role
from vms.selection import read_once
from vms.services.ticks import clear_ticks


@require_http_methods(["GET", "POST"])
def bulk_create(request: PortalRequest) -> HttpResponse:
    """What is asked of which VMs; then the request itself."""
    data = read_once(request.POST, request.GET)
    if request.method == "POST" and (made := asked_before(request.user, data.get("request_id", ""))) is not None:
        return redirect(made)
    wizard = bulk_wizard(data, user=request.user)
    if request.method != "POST" or not wizard.is_confirmed:
        return render_page(request, wizard.template, {"wizard": wizard}, status=wizard.status)
    what = wizard.rollout
    made = _start_rollout(request, wizard, what) if what is not None else _start_bulk(request, wizard)
    clear_ticks(user=request.user, of=wizard.asked.selection)
    wake_up(is_bulk=True)
    return redirect(made)


def _start_bulk(request: PortalRequest, wizard: BulkWizard) -> BulkRequest:
    assert wizard.kind is not None
    return request_bulk(
        request_id=wizard.request_id,
        kind=wizard.kind,
        selection=wizard.asked.selection,
        plan=wizard.plan,
        requested_by=request.user,
        chosen_by=wizard.chosen_by,
        shares=wizard.shares,
    )


def _start_rollout(request: PortalRequest, wizard: BulkWizard, what: RolloutPlan) -> Rollout:
    return create_rollout(
        what=what,
        selection=wizard.asked.selection,
        now=timezone.now(),
        created_by=request.user,
        rollout_id=wizard.request_id,
        shares=wizard.shares,
    )


@require_http_methods(["GET", "POST"])
def bulk_retry(request: PortalRequest) -> HttpResponse:
    """The review of the same plan on the machines of these installations."""
    again = load_again(request.user, read_once(request.POST, request.GET).getlist("operation"))
    if again.plan is None:
        return render_page(request, "updates/bulk_retry.html", {"again": again}, status=422)
    wizard = wizard_again(again.vm_ids, again.plan, user=request.user)
    return render_page(request, wizard.template, {"wizard": wizard, "again": again}, status=wizard.status)


@require_GET
def bulk_detail(request: PortalRequest, pk: UUID) -> HttpResponse:
    """How far it is, and what became of each VM."""
    asked = request.GET
    after, reason = _whole_number(asked.get("after", "")), asked_reason(asked)
    page = load_bulk(request.user, pk, show=asked.get("show", ""), after=after, now=timezone.now(), reason=reason)
    context = {"page": page, "bulk": page.request, "bar": bar_of_bulk(page)}
    return render_page(request, "updates/bulk.html", context, partials={"bulk-progress"})


def _whole_number(text: str) -> int:
    """A number in an address; anything else is 0."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


@require_POST
def bulk_cancel(request: PortalRequest, pk: UUID) -> HttpResponse:
    """Stop handing it out and cancel what is still queued."""
    row = bulk_or_404(request.user, pk, Role.OPERATOR)
    count = cancel_bulk(request_id=row.pk, requested_by=request.user)
    words = ngettext("Cancelled %(count)s queued operation.", "Cancelled %(count)s queued operations.", count)
    messages.success(request, words % {"count": count})
    return redirect("updates:bulk", pk)
