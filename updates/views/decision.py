"""What waits for a decision: updates that the guard holds, and releases whose type is not confirmed."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from ui.http import PortalRequest
from ui.pages import render_page
from updates.forms import DecisionForm
from updates.selectors.decisions import load_news, may_decide, unconfirmed_releases


@require_http_methods(["GET", "POST"])
def decisions(request: PortalRequest) -> HttpResponse:
    """Read by everybody; answered, once for all machines, by Patch operators of everything."""
    is_allowed = may_decide(request.user)
    if request.method == "POST" and not is_allowed:
        raise PermissionDenied
    form = DecisionForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.decide(request.user, now=timezone.now()):
        messages.success(request, _("Decided for every machine. Lists follow within a minute."))
        return redirect("updates:decisions")
    context = {"news": load_news(request.user), "unconfirmed": unconfirmed_releases(), "form": form}
    context["may_decide"] = is_allowed
    return render_page(request, "updates/decisions.html", context, status=422 if form.is_bound else 200)
