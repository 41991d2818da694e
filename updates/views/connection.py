"""Connections: what is behind them, changing, pausing and testing them. For owners of everything."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from connectors.registry import simulated_kinds
from ui.http import PortalRequest
from ui.pages import render_page
from updates.selectors.connections import connection_pictures, machines_with_misfortune, probe_connection
from updates.tasks import wake_up
from vms.forms.connections import MisfortuneForm, PauseForm, connection_form
from vms.models import Connection
from vms.selectors import owns_everything
from vms.services.connections import note_test, pause_connection, resume_connection, save_connection, set_misfortune

View = Callable[..., HttpResponse]


def for_owners_of_everything(view: View) -> View:
    """403 for everybody else."""

    @wraps(view)
    def guarded(request: PortalRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not owns_everything(request.user):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return guarded


@require_GET
@for_owners_of_everything
def connection_list(request: PortalRequest) -> HttpResponse:
    """Every connection with how much there is behind it."""
    rows = connection_pictures(list(Connection.objects.order_by("name")), now=timezone.now())
    return render_page(request, "updates/connections.html", {"rows": rows})


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def connection_create(request: PortalRequest) -> HttpResponse:
    """A new connection."""
    form = connection_form(request.POST or None, kind_of_new=request.GET.get("kind", ""))
    if form.is_bound and form.is_valid():
        connection = form.instance
        save_connection(connection=connection)
        messages.success(request, _("The connection %(name)s was created.") % {"name": connection.name})
        return redirect("updates:connection", connection.pk)
    return render_page(request, "updates/connection_create.html", {"form": form}, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def connection_detail(request: PortalRequest, pk: int) -> HttpResponse:
    """One connection: what goes on behind it, and its settings to change."""
    connection = get_object_or_404(Connection, pk=pk)
    form = connection_form(request.POST or None, instance=connection)
    if form.is_bound and form.is_valid():
        save_connection(connection=form.instance)
        messages.success(request, _("The connection was changed. The next assessments go by it."))
        return redirect("updates:connection", pk)
    return _detail(request, pk, form=form, status=422 if form.is_bound else 200)


@require_POST
@for_owners_of_everything
def connection_pause(request: PortalRequest, pk: int) -> HttpResponse:
    """Pause (for `minutes`) or resume."""
    connection = get_object_or_404(Connection, pk=pk)
    if "resume" in request.POST:
        resume_connection(connection=connection)
        wake_up()
        return redirect("updates:connection", pk)
    form = PauseForm(request.POST)
    if not form.is_valid():
        return _detail(request, pk, pause=form, status=422)
    pause_connection(connection=connection, minutes=form.cleaned_data["minutes"] or None)
    return redirect("updates:connection", pk)


@require_POST
@for_owners_of_everything
def connection_test(request: PortalRequest, pk: int) -> HttpResponse:
    """Ask the connector whether it answers, and what it would offer."""
    connection = get_object_or_404(Connection, pk=pk)
    probe = probe_connection(connection, now=timezone.now())
    note_test(connection=connection, error=probe.error, milliseconds=probe.milliseconds)
    return _detail(request, pk, probe=probe)


@require_POST
@for_owners_of_everything
def connection_misfortune(request: PortalRequest, pk: int) -> HttpResponse:
    """Let a simulated machine suffer something, or nothing any more."""
    connection = get_object_or_404(Connection, pk=pk, kind__in=simulated_kinds())
    form = MisfortuneForm(request.POST)
    if form.is_valid():
        name = form.cleaned_data["name"]
        count = set_misfortune(connection=connection, vm_name=name, wish=form.wish)
        if count:
            words = ngettext("Set on %(count)s machine.", "Set on %(count)s machines.", count)
            messages.success(request, words % {"count": count})
            return redirect("updates:connection", pk)
        form.add_error("name", _("No machine of this name is behind this connection."))
    return _detail(request, pk, misfortune=form, status=422)


def _detail(request: PortalRequest, pk: int, *, status: int = 200, **shown: Any) -> HttpResponse:
    """The page of a connection with these forms, or fresh ones."""
    connection = get_object_or_404(Connection, pk=pk)
    (picture,) = connection_pictures([connection], now=timezone.now())
    context = {
        "form": connection_form(None, instance=connection),
        "pause": PauseForm(),
        "misfortune": MisfortuneForm(),
        "machines": machines_with_misfortune(connection) if connection.traits.is_simulated else [],
        **shown,
        "picture": picture,
    }
    return render_page(request, "updates/connection.html", context, status=status)
