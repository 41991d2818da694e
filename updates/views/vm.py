"""One VM: its overview and the Updates blade."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from patching.lifecycle import deadline_after
from patching.restart import EXPECTED, LONGEST
from patching.terms import OperationKind
from ui.http import PortalRequest
from ui.pages import render_page
from ui.watching import watch
from updates.filters import history_of
from updates.forms.install import InstallWizard, RequestForm
from updates.forms.record import NameForm, RollbackForm
from updates.pictures import strip_of
from updates.selectors.activity import load_activity
from updates.selectors.blade import VmPicture, load_picture
from updates.selectors.machine_year import MachineYear
from updates.selectors.restarts import blackouts_meaning, judge_restarts
from updates.services.operations import RequestOutcome, RequestVerdict, request_assessments, request_installations
from updates.services.removal import MachineIsBusyError, preview_removal, remove_vm
from updates.services.restarts import request_restarts
from updates.services.rollback import lift_hold, request_rollback
from updates.tasks import wake_up
from updates.texts import error_text
from vms.access import vm_or_404
from vms.choices import Role

TABS = ("recommended", "compliance", "history", "installed")


@require_GET
def overview(request: PortalRequest, pk: int) -> HttpResponse:
    """What the VM is, whether it can be hotpatched and why, its year, what comes next, what was done last."""
    picture = load_picture(request.user, pk, now=timezone.now())
    year = MachineYear(picture)
    context = {"vm": picture.vm, "picture": picture, "year": year, "strip": strip_of(year)}
    return render_page(request, "updates/overview.html", context)


@require_GET
def blade(request: PortalRequest, pk: int) -> HttpResponse:
    """Operations › Updates."""
    now = timezone.now()
    picture = load_picture(request.user, pk, now=now)
    tab = request.GET.get("tab", "")
    context = {
        "vm": picture.vm,
        "picture": picture,
        "tab": tab if tab in TABS else TABS[0],
        "history": history_of(picture.operations, request.GET.dict(), now),
        "poll_seconds": picture.poll_seconds,
    }
    return render_page(request, "updates/blade.html", context, partials={"blade", "progress"})


@require_GET
def activity(request: PortalRequest, pk: int) -> HttpResponse:
    """Who did what to this VM: operations and changes of settings."""
    vm = vm_or_404(request.user, pk)
    return render_page(request, "updates/activity.html", {"vm": vm, "entries": load_activity(vm)})


@require_http_methods(["GET", "POST"])
def remove(request: PortalRequest, pk: int) -> HttpResponse:
    """Remove the record of a VM: what goes with it first, then its name."""
    vm = vm_or_404(request.user, pk, Role.OWNER)
    form = NameForm(request.POST or None, vm=vm)
    busy: UUID | None = None
    if form.is_bound and form.is_valid():
        try:
            remove_vm(vm_id=pk, removed_by=request.user)
        except MachineIsBusyError as error:
            busy = error.operation_id
        else:
            messages.success(request, _("The record of %(name)s was removed.") % {"name": vm.name})
            return redirect("vms:vm-list")
    status = 409 if busy else 422 if form.errors else 200
    context = {"vm": vm, "form": form, "preview": preview_removal(vm=vm)}
    return render_page(request, "updates/remove.html", context, status=status)


@require_POST
def assess(request: PortalRequest, pk: int) -> HttpResponse:
    """Assess now: a second click joins what the first one asked for."""
    vm_or_404(request.user, pk, Role.OPERATOR)
    (outcome,) = request_assessments(vm_ids=[pk], requested_by=request.user)
    if outcome.verdict is RequestVerdict.REFUSED:
        messages.warning(request, str(error_text(outcome.code).title))
    elif outcome.verdict is RequestVerdict.JOINED:
        messages.info(request, _("An assessment is already under way; its result answers this request too."))
    wake_up()
    return watch(request, redirect("updates:blade", pk), outcome.operation_id)


@require_http_methods(["GET", "POST"])
def install(request: PortalRequest, pk: int) -> HttpResponse:
    """Install updates now: updates, properties, review, run."""
    picture = load_picture(request.user, pk, now=timezone.now(), role=Role.OPERATOR)
    wizard = InstallWizard(request.POST or None, picture=picture, asked=request.GET)
    if wizard.is_confirmed:
        form = wizard.form
        (outcome,) = request_installations(
            vm_ids=[pk], plan=form.plan, requested_by=request.user, operation_id=form.cleaned_data["request_id"]
        )
        if outcome.verdict is not RequestVerdict.REFUSED:
            wake_up()
            return watch(request, redirect("updates:operation", outcome.operation_id), outcome.operation_id)
        wizard.refuse(outcome)
    context = {"vm": picture.vm, "picture": picture, "wizard": wizard}
    return render_page(request, "updates/install.html", context, partials={"wizard-step"}, status=wizard.status)


@require_http_methods(["GET", "POST"])
def rollback(request: PortalRequest, pk: int) -> HttpResponse:
    """The way back to the last good baseline: the plan first, then the machine's name, then the run."""
    picture = load_picture(request.user, pk, now=timezone.now(), role=Role.OPERATOR)
    form = RollbackForm(request.POST or None, vm=picture.vm, way_back=picture.rollback)
    outcome = _roll_back(form, request.user) if form.is_valid() else None
    if outcome is not None and outcome.verdict is not RequestVerdict.REFUSED:
        wake_up()
        return watch(request, redirect("updates:operation", outcome.operation_id), outcome.operation_id)
    status = 409 if outcome else 422 if form.errors else 200
    context = {"vm": picture.vm, "picture": picture, "form": form, "refused": outcome}
    return render_page(request, "updates/rollback.html", context, status=status)


def _roll_back(form: RollbackForm, user: User) -> RequestOutcome:
    """Ask for the rollback that a valid form confirms."""
    assert form.order is not None
    return request_rollback(
        vm_id=form.vm.pk, order=form.order, requested_by=user, operation_id=form.cleaned_data["request_id"]
    )


@require_http_methods(["GET", "POST"])
def restart(request: PortalRequest, pk: int) -> HttpResponse:
    """Restart now: what will happen first, then the restart."""
    picture = load_picture(request.user, pk, now=timezone.now(), role=Role.OPERATOR)
    form, outcome = RequestForm(request.POST if request.method == "POST" else None), None
    if form.is_valid():
        request_id = form.cleaned_data["request_id"]
        (outcome,) = request_restarts(vm_ids=[pk], requested_by=request.user, operation_id=request_id)
        if outcome.verdict is not RequestVerdict.REFUSED:
            wake_up()
            return watch(request, redirect("updates:operation", outcome.operation_id), outcome.operation_id)
    context = {"vm": picture.vm, "picture": picture, "form": form, "refused": outcome, **_restart_plan(picture)}
    return render_page(request, "updates/restart.html", context, status=409 if outcome else 422 if form.errors else 200)


def _restart_plan(picture: VmPicture) -> dict[str, Any]:
    """What a restart of this machine would mean now, or why there is none."""
    return {
        "refusal": judge_restarts([picture.vm.pk], now=picture.now)[picture.vm.pk],
        "blackouts": blackouts_meaning(picture.vm, now=picture.now),
        "expected": EXPECTED,
        "longest": deadline_after(OperationKind.RESTART, LONGEST),
    }


@require_POST
def lift(request: PortalRequest, pk: int) -> HttpResponse:
    """Let installations take a KB again that a rollback holds back."""
    vm_or_404(request.user, pk, Role.OPERATOR)
    kb_number = request.POST.get("kb", "")
    if lift_hold(vm_id=pk, kb_number=kb_number):
        messages.success(request, _("The hold was lifted: the next installation may take the update."))
    else:
        messages.warning(
            request, _("No hold was lifted: “%(kb)s” is not held back on this machine.") % {"kb": kb_number[:40]}
        )
    return redirect("updates:blade", pk)
