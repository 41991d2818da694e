"""Freezes: when nothing may run, why, and who is let through. For owners of everything, but for looking."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms.freezes import ExceptionForm, FreezeForm
from updates.models import Freeze
from updates.selectors.freeze_effects import effects_of
from updates.selectors.freezes import exceptions_of, freeze_row, visible_freezes
from updates.services.freezes import (
    FreezeIsOverError,
    change_freeze,
    end_exception,
    end_freeze,
    make_exception,
    make_freeze,
)
from updates.views.connection import for_owners_of_everything
from vms.models import VirtualMachine


@require_GET
def freeze_list(request: PortalRequest) -> HttpResponse:
    """The freezes that mean a machine of the reader's."""
    return render_page(request, "updates/freezes.html", {"rows": visible_freezes(request.user, now=timezone.now())})


@require_GET
def freeze_detail(request: PortalRequest, pk: int) -> HttpResponse:
    """When the freeze holds, the machines that it concerns, and its exceptions."""
    now = timezone.now()
    if pk not in {one.row.pk for one in visible_freezes(request.user, now=now)}:
        raise Http404
    row = Freeze.objects.select_related("created_by").get(pk=pk)
    page = freeze_row(row, now=now, vms=VirtualMachine.objects.visible_to(request.user))
    context = {"row": row, "page": page, "exceptions": exceptions_of(row, now=now)}
    return render_page(request, "updates/freeze.html", context)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def freeze_create(request: PortalRequest) -> HttpResponse:
    """A new one, with what it would hold before it is made."""
    form = FreezeForm(request.POST or None, now=timezone.now())
    if request.POST.get("go") == "save" and form.is_valid():
        row = make_freeze(freeze=form.freeze, made_by=request.user)
        messages.success(request, _("The freeze “%(name)s” was made.") % {"name": row.name})
        return redirect("updates:freeze", row.pk)
    return _freeze_form(request, form)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def freeze_edit(request: PortalRequest, pk: int) -> HttpResponse:
    """Change one, with the same preview."""
    now = timezone.now()
    form = FreezeForm(request.POST or None, now=now, instance=get_object_or_404(Freeze, pk=pk))
    if request.POST.get("go") == "save" and form.is_valid():
        try:
            change_freeze(freeze=form.freeze, now=now, changed_by=request.user)
        except FreezeIsOverError:
            form.add_error(None, _("Nothing was changed: the freeze has ended."))
        else:
            return redirect("updates:freeze", pk)
    return _freeze_form(request, form)


def _freeze_form(request: PortalRequest, form: FreezeForm) -> HttpResponse:
    effects = effects_of(form.freeze, now=form.now) if form.is_bound and form.is_valid() else None
    context = {"form": form, "row": form.instance, "effects": effects}
    return render_page(request, "updates/freeze_form.html", context, status=422 if form.errors else 200)


@require_POST
@for_owners_of_everything
def freeze_end(request: PortalRequest, pk: int) -> HttpResponse:
    """End it early, or call it off."""
    row = get_object_or_404(Freeze, pk=pk)
    try:
        end_freeze(freeze_id=pk, now=timezone.now(), ended_by=request.user)
    except FreezeIsOverError:
        messages.warning(request, _("Nothing was changed: the freeze has ended."))
    else:
        messages.success(request, _("The freeze “%(name)s” was ended: nothing is held by it any more.") % {"name": row})
    return redirect("updates:freeze", pk)


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def exception_create(request: PortalRequest, pk: int) -> HttpResponse:
    """Let machines through until a moment."""
    now, row = timezone.now(), get_object_or_404(Freeze, pk=pk)
    form = ExceptionForm(request.POST or None, freeze=row, now=now)
    if form.is_bound and form.is_valid():
        try:
            make_exception(exception=form.exception, now=now, made_by=request.user, selection=form.selection)
        except FreezeIsOverError:
            form.add_error(None, _("Nothing was changed: the freeze has ended."))
        else:
            return redirect("updates:freeze", pk)
    context = {"form": form, "row": row}
    return render_page(request, "updates/freeze_exception.html", context, status=422 if form.errors else 200)


@require_POST
@for_owners_of_everything
def exception_end(request: PortalRequest, pk: int, exception: int) -> HttpResponse:
    """Hold its machines again."""
    if not end_exception(freeze_id=pk, exception_id=exception, now=timezone.now(), ended_by=request.user):
        messages.warning(request, _("Nothing was changed: the exception has ended."))
    return redirect("updates:freeze", pk)
