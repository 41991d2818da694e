"""The ticks of the list: kept while it is paged, sorted and filtered, and handed to what acts on them."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from db.bounded import ListTooSlowError
from ui.http import PortalRequest
from vms.filters import LIST_PARAMETERS, VmFilter
from vms.forms.lists import Go, TicksForm
from vms.selection import VmSelection
from vms.services.ticks import TooManyTicksError, clear_ticks, keep_ticks, tick_all_that_match
from vms.ticks import MOST_TICKS


@require_POST
def list_ticks(request: PortalRequest) -> HttpResponse:
    """Keep the ticks of a page of the list, and go on: to another page of it, or to what is done with them."""
    form = TicksForm(request.POST)
    if not form.is_valid():
        raise SuspiciousOperation("these are no ticks of a list")
    filters = VmFilter.of(request.user, form.asked)
    if _kept(request, form, filters) and (address := _act_of(form, filters)):
        return redirect(address)
    return redirect(f"{reverse('vms:vm-list')}?{form.turned}".removesuffix("?"))


def _kept(request: PortalRequest, form: TicksForm, filters: VmFilter) -> bool:
    """Whether the ticks are as the form asks for; otherwise the person is told why not."""
    user, now = request.user, timezone.now()
    try:
        if form.what is Go.CLEAR:
            clear_ticks(user=user)
        elif form.what is Go.MATCH:
            return _tick_all(request, filters)
        else:
            keep_ticks(user=user, shown=form.shown_ids, ticked=form.cleaned_data["ticked"], now=now)
    except TooManyTicksError:
        messages.warning(request, _("No more than %(most)s machines are ticked one by one.") % {"most": MOST_TICKS})
        return False
    return True


def _tick_all(request: PortalRequest, filters: VmFilter) -> bool:
    if filters.problems(LIST_PARAMETERS):
        messages.warning(request, _("Nothing was selected, because part of the address cannot be read."))
        return False
    try:
        matching = VmSelection.matching(filters.found).count
    except ListTooSlowError:
        messages.warning(request, _("Counting the machines took too long. Narrow the list down."))
        return False
    tick_all_that_match(user=request.user, filters=filters.narrowing, matching=matching, now=timezone.now())
    return True


def _act_of(form: TicksForm, filters: VmFilter) -> str:
    """Where the ticked machines are acted on; empty: nowhere, the list is shown again."""
    if form.what is Go.SETTINGS:
        return f"{reverse('updates:settings-change')}?kept=1"
    if form.what is Go.INCLUDE and (kb_number := filters.lacking_kb):
        return f"{reverse('updates:bulk-create')}?kind=installation&kept=1&include={kb_number}"
    if form.what is Go.ATTACH:
        return f"{reverse('updates:maintenance-attach')}?kept=1"
    if form.what in {Go.ASSESSMENT, Go.INSTALLATION, Go.ROLLBACK, Go.RESTART}:
        return f"{reverse('updates:bulk-create')}?kind={form.what.value}&kept=1"
    return ""
