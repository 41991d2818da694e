"""The history of the fleet: its operations, its runs on many machines, and what error codes mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from audit.context import acting
from audit.tags import Door
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from updates.forms.history import HistoryForm, RunsForm
from updates.selectors.fleet_history import load_history
from updates.selectors.fleet_history_export import history_csv
from updates.selectors.fleet_history_runs import load_runs_of_many
from updates.services.history import note_history_export
from updates.texts import HRESULTS
from vms.list_answers import answer_list
from vms.models import Grants
from vms.selectors import filter_options


@require_GET
@in_a_tidy_address
def history(request: PortalRequest) -> HttpResponse:
    """What was done to the machines that the reader may see; a filter that cannot be read shows nothing."""
    form = HistoryForm(request.GET, options=filter_options(Grants.of(request.user)))
    return _answer(request, "updates/history.html", form, load_history)


@require_GET
@in_a_tidy_address
def history_runs(request: PortalRequest) -> HttpResponse:
    """The rollouts and bulk requests that the reader may see."""
    return _answer(request, "updates/history_runs.html", RunsForm(request.GET), load_runs_of_many)


def _answer(
    request: PortalRequest, template: str, form: HistoryForm | RunsForm, load: Callable[..., Any]
) -> HttpResponse:
    def find(asked: Any, cursor: str) -> Any:
        return load(request.user, asked, now=timezone.now(), cursor=cursor)

    return answer_list(request, template, form, find, part="history-table")


@require_GET
def history_export(request: PortalRequest) -> HttpResponse | StreamingHttpResponse:
    """What the page would show, all pages of it, as CSV; that it was taken is kept."""
    form = HistoryForm(request.GET, options=filter_options(Grants.of(request.user)))
    if not form.is_valid():
        return render_page(request, "updates/history.html", {"form": form}, status=422)
    with acting(door=Door.PAGE, person=request.user):
        note_history_export(filters=form.filters, by=request.user)
    name = f"history-{timezone.localdate().isoformat()}.csv"
    lines = history_csv(reader=request.user, asked=form.asked, now=timezone.now())
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)


@require_GET
def history_codes(request: PortalRequest) -> HttpResponse:
    """What the codes of Windows mean, what to do, and where that was read."""
    return render_page(request, "updates/history_codes.html", {"codes": HRESULTS})
