"""What waits for a decision: updates that the guard holds, and releases whose type is not confirmed."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from patching.terms import ProductLine, ReleaseType
from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms.catalogue import DecisionForm
from updates.selectors.decisions import load_news, may_decide, unconfirmed_releases
from updates.services.catalogue import DecisionError, confirm_release_type, decide_release
from updates.texts import DECISION_PROBLEMS


@require_http_methods(["GET", "POST"])
def decisions(request: PortalRequest) -> HttpResponse:
    """Read by everybody; answered, once for all machines, by Patch operators of everything."""
    is_allowed = may_decide(request.user)
    if request.method == "POST" and not is_allowed:
        raise PermissionDenied
    news = load_news(request.user)
    waiting = {(item.line, item.kb_number) for item in news.waiting}
    form = DecisionForm(request.POST if request.method == "POST" else None, waiting=waiting)
    if form.is_valid() and _decided(form, request.user.get_username()):
        messages.success(request, _("Decided for every machine. Lists follow within a minute."))
        return redirect("updates:decisions")
    context = {"news": news, "unconfirmed": unconfirmed_releases(), "form": form}
    context["may_decide"] = is_allowed
    return render_page(request, "updates/decisions.html", context, status=422 if form.is_bound else 200)


def _decided(form: DecisionForm, by: str) -> bool:
    """Record the decision of a valid form. False: it was refused, and the form says why."""
    record = _confirm if form.cleaned_data["release"] else _decide
    try:
        record(form, by)
    except DecisionError as error:
        form.add_error(None, str(DECISION_PROBLEMS[error.problem]))
    return not form.errors


def _confirm(form: DecisionForm, by: str) -> None:
    said = form.cleaned_data
    confirm_release_type(release_id=said["release"], confirmed_by=by, reason=said["reason"], now=timezone.now())


def _decide(form: DecisionForm, by: str) -> None:
    said = form.cleaned_data
    decide_release(
        product_line=ProductLine(said["line"]),
        kb_number=said["kb"],
        type=ReleaseType(said["answer"]),
        decided_by=by,
        reason=said["reason"],
        now=timezone.now(),
    )
