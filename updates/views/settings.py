"""Patch settings of machines: changing them, applying them again, and taking those that a machine reports."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from ui.http import PortalRequest
from ui.pages import render_page
from ui.watching import watch
from updates.services.operations import RequestVerdict
from updates.services.settings import apply_settings_again, change_settings
from updates.tasks import wake_up
from updates.texts import error_text
from vms.access import vm_or_404
from vms.choices import Role
from vms.forms.settings import SettingsWizard
from vms.selection import read_once
from vms.services.settings import accept_settings
from vms.services.ticks import clear_ticks


@require_http_methods(["GET", "POST"])
def settings_change(request: PortalRequest) -> HttpResponse:
    """Change the settings of one machine or of a selection: change, review, done."""
    data = read_once(request.POST, request.GET)
    wizard = SettingsWizard(data, user=request.user, is_sent=request.method == "POST")
    if wizard.asked.are_gone:
        raise Http404
    if wizard.asked.is_role_missing:
        raise PermissionDenied
    if wizard.is_confirmed:
        change = wizard.form.change
        wizard.finish(change_settings(selection=wizard.asked.selection, change=change, changed_by=request.user))
        clear_ticks(user=request.user, of=wizard.asked.selection)
        wake_up()
    return render_page(request, "vms/settings_change.html", {"wizard": wizard}, status=wizard.status)


@require_POST
def settings_apply(request: PortalRequest, pk: int) -> HttpResponse:
    """Carry the wanted settings to a machine that reports others; a second click finds what the first one made."""
    vm_or_404(request.user, pk, Role.OWNER)
    outcome = apply_settings_again(vm_id=pk, requested_by=request.user)
    if outcome is None:
        messages.info(request, _("There is nothing to apply: the machine reports the settings that are wanted."))
    elif outcome.verdict is RequestVerdict.REFUSED:
        messages.warning(request, str(error_text(outcome.code).title))
    else:
        wake_up()
        return watch(request, redirect("updates:operation", outcome.operation_id), outcome.operation_id)
    return redirect("vms:vm-settings", pk)


@require_POST
def settings_accept(request: PortalRequest, pk: int) -> HttpResponse:
    """Want what the machine reports."""
    vm_or_404(request.user, pk, Role.OWNER)
    if accept_settings(vm_id=pk, accepted_by=request.user):
        messages.success(request, _("The settings that the machine reports are the wanted ones from now on."))
    else:
        messages.info(request, _("There is nothing to apply: the machine reports the settings that are wanted."))
    return redirect("vms:vm-settings", pk)
