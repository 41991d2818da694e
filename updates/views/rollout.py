"""Rollouts and maintenance configurations: waves, progress, why it waits; what opens when and on which machines."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms.maintenance import MaintenanceForm
from updates.models import MaintenanceConfiguration
from updates.pictures import bar_of_rollout, gate_words, waves_of
from updates.selectors.bulk import bulk_requests_of
from updates.selectors.coverage import count_covered
from updates.selectors.maintenance import troubles_of
from updates.selectors.rollouts import MAX_ROLLOUTS, load_rollout, rollout_or_404, rollouts_of
from updates.selectors.runs import asked_reason
from updates.services.automation import (
    WindowIsNearError,
    change_configuration,
    configuration_page,
    configuration_preview,
    create_configuration,
    remove_configuration,
    switch_configuration,
)
from updates.services.rollouts import end_rollout, pause_rollout, resume_rollout
from updates.views.connection import for_owners_of_everything
from vms.choices import Role


@require_GET
def rollout_list(request: PortalRequest) -> HttpResponse:
    """The latest rollouts and bulk requests that the reader may see."""
    context = {
        "rollouts": rollouts_of(request.user)[:MAX_ROLLOUTS],
        "bulk_requests": bulk_requests_of(request.user)[:MAX_ROLLOUTS],
    }
    return render_page(request, "updates/rollouts.html", context)


@require_GET
def rollout_detail(request: PortalRequest, pk: UUID) -> HttpResponse:
    """Its waves, its gates, and what became of each machine."""
    asked, now = request.GET, timezone.now()
    page = load_rollout(request.user, pk, state=asked.get("state", ""), now=now, reason=asked_reason(asked))
    pictures = {"bar": bar_of_rollout(page), "waves": waves_of(page), "gate": gate_words(page.gate)}
    context = {"page": page, "rollout": page.rollout, **pictures}
    return render_page(request, "updates/rollout.html", context, partials={"rollout"})


@require_POST
def rollout_move(request: PortalRequest, pk: UUID) -> HttpResponse:
    """Pause, resume or end it."""
    rollout = rollout_or_404(request.user, pk, Role.OPERATOR)
    now, asked = timezone.now(), request.POST.get("go")
    moved = (
        (asked == "pause" and pause_rollout(rollout_id=rollout.pk, paused_by=request.user))
        or (asked == "resume" and resume_rollout(rollout_id=rollout.pk, now=now, resumed_by=request.user))
        or (asked == "end" and end_rollout(rollout_id=rollout.pk, now=now, ended_by=request.user))
    )
    if not moved:
        messages.warning(request, _("Nothing was changed: it is in another state already."))
    return redirect("updates:rollout", pk)


@require_GET
@for_owners_of_everything
def maintenance_list(request: PortalRequest) -> HttpResponse:
    """Every maintenance configuration."""
    rows = [(row, troubles_of(row)) for row in MaintenanceConfiguration.objects.order_by("next_run_at", "name")]
    context = {"rows": rows, "coverage": count_covered() if rows else None}
    return render_page(request, "updates/maintenance_list.html", context)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def maintenance_create(request: PortalRequest) -> HttpResponse:
    """A new one, with a preview of its machines and its next windows before it is made."""
    form = MaintenanceForm(request.POST or None)
    if request.POST.get("go") == "save" and form.is_valid():
        row = create_configuration(
            configuration=form.configuration, created_by=request.user, now=timezone.now(), selection=form.selection
        )
        return redirect("updates:maintenance", row.pk)
    return _maintenance_form(request, form)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def maintenance_edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Change one, with the same preview."""
    form = MaintenanceForm(request.POST or None, instance=get_object_or_404(MaintenanceConfiguration, pk=pk))
    if request.POST.get("go") == "save" and form.is_valid():
        try:
            change_configuration(configuration=form.configuration, now=timezone.now(), selection=form.selection)
        except WindowIsNearError:
            form.add_error(None, _("A window opens within 15 minutes. Switch it off first, or change it afterwards."))
        else:
            return redirect("updates:maintenance", pk)
    return _maintenance_form(request, form)


LIVE = frozenset({"recurrence", "members"})


def _maintenance_form(request: PortalRequest, form: MaintenanceForm) -> HttpResponse:
    preview, is_live = None, "go" not in request.POST  # no button was pressed: the rest is still being filled in
    if form.is_bound and not is_live and form.is_valid():
        preview = configuration_preview(configuration=form.configuration, now=timezone.now(), vm_ids=form.selection.ids)
    troubles = troubles_of(form.instance) if form.instance else ()
    context = {"form": form, "preview": preview, "row": form.instance, "troubles": troubles}
    status = 422 if form.errors and not is_live else 200
    return render_page(request, "updates/maintenance_form.html", context, partials=LIVE, status=status)


@require_POST
@for_owners_of_everything
def maintenance_remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Remove it; what has run stays in the history."""
    row = get_object_or_404(MaintenanceConfiguration, pk=pk)
    remove_configuration(configuration_id=pk)
    messages.success(request, _("“%(name)s” was removed; its rollouts stay in the history.") % {"name": row.name})
    return redirect("updates:maintenances")


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def maintenance_detail(request: PortalRequest, pk: int) -> HttpResponse:
    """When it opens next, whom it means, what has run; switched on and off."""
    row = get_object_or_404(MaintenanceConfiguration, pk=pk)
    if request.method == "POST":
        if (asked := request.POST.get("go")) in {"enable", "disable"}:
            switch_configuration(configuration_id=pk, is_enabled=asked == "enable", now=timezone.now())
        return redirect("updates:maintenance", pk)
    page = configuration_page(configuration=row, now=timezone.now())
    context = {"row": row, "page": page, "preview": page.preview, "runs": row.rollouts.order_by("-created_at")[:20]}
    return render_page(request, "updates/maintenance.html", context)
