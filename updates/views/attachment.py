"""Attaching machines of the list to a maintenance configuration, and detaching them. For owners of everything."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms.attachments import AttachmentWizard
from updates.services.attachments import attach_machines, detach_machines
from updates.services.automation import WindowIsNearError
from updates.views.connection import for_owners_of_everything
from vms.selection import read_once
from vms.services.ticks import clear_ticks


@require_http_methods(["GET", "POST"])
@for_owners_of_everything
def maintenance_attach(request: PortalRequest) -> HttpResponse:
    """Which machines, which configuration, what it would change; then it is done."""
    data = read_once(request.POST, request.GET)
    wizard = AttachmentWizard(data, user=request.user, is_sent=request.method == "POST")
    if wizard.is_confirmed:
        try:
            _carry_out(request, wizard)
        except WindowIsNearError:
            wizard.trouble = _("A window opens within 15 minutes. Switch it off first, or change it afterwards.")
        else:
            return redirect("updates:maintenance", wizard.form.cleaned_data["configuration"].pk)
    return render_page(request, "updates/maintenance_attach.html", {"wizard": wizard}, status=wizard.status)


def _carry_out(request: PortalRequest, wizard: AttachmentWizard) -> None:
    pk, selection, now = wizard.form.cleaned_data["configuration"].pk, wizard.asked.selection, timezone.now()
    if wizard.is_attaching:
        count = attach_machines(configuration_id=pk, selection=selection, now=now, attached_by=request.user)
        words = ngettext("%(count)s machine was attached.", "%(count)s machines were attached.", count)
    else:
        count = detach_machines(configuration_id=pk, selection=selection, now=now, detached_by=request.user)
        words = ngettext("%(count)s machine was detached.", "%(count)s machines were detached.", count)
    clear_ticks(user=request.user, of=selection)
    messages.success(request, words % {"count": count})
