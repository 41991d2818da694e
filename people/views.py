"""Account (preferences, sessions) and activity."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, override
from django.views.decorators.http import require_GET, require_POST

from audit.context import acting
from audit.tags import Door
from db.bounded import ListTooSlowError
from people.forms import ActivityForm, PreferencesForm
from people.models import Preferences
from people.selectors.activity import activity_csv, activity_page
from people.services import carry, end_sessions, note_export, save_preferences, sessions_of
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page


@require_GET
def account(request: PortalRequest) -> HttpResponse:
    """What the reader prefers, and where the reader is signed in."""
    stored = Preferences.objects.filter(user=request.user).values().first()
    context = {"form": PreferencesForm(initial=stored), "sessions": sessions_of(user=request.user)}
    return render_page(request, "account/account.html", context)


@login_not_required
@require_POST
def set_preferences(request: PortalRequest) -> HttpResponse:
    """Keep what was sent (all of it, or one field from a menu) and go back. A value that is not offered changes nothing."""
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
        target = "/"
    response = HttpResponseRedirect(target)
    form = PreferencesForm(request.POST)
    if form.is_valid():
        carry(response, values=form.sent)
        if request.user.is_authenticated:
            save_preferences(user=request.user, values=form.sent)
            if len(form.sent) > 1:  # the account page; a menu of the top bar shows its effect by itself
                with override(form.sent.get("language") or None):
                    messages.success(request, _("Your preferences were saved."))
    return response


@require_POST
def sessions_end(request: PortalRequest) -> HttpResponse:
    """Sign out elsewhere: in one session, or in all but this one."""
    asked = request.POST.get("session", "")
    session_id = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 19 else None
    if asked and session_id is None:
        return redirect("account")
    keep = request.session.session_key or ""
    count = end_sessions(user=request.user, keep=keep, session_id=session_id)
    words = ngettext("Signed out in %(count)s other session.", "Signed out in %(count)s other sessions.", count)
    messages.success(request, words % {"count": count})
    return redirect("account")


@require_GET
@in_a_tidy_address
def activity(request: PortalRequest) -> HttpResponse:
    """Who did what, as far as the reader may see it; a filter that cannot be read shows nothing."""
    form = ActivityForm(request.GET)
    page, is_too_slow = None, False
    if form.is_valid():
        try:
            page = activity_page(reader=request.user, asked=form.asked, cursor=request.GET.get("cursor", ""))
        except ListTooSlowError:
            is_too_slow = True
    context = {"form": form, "page": page, "is_too_slow": is_too_slow}
    status = 422 if form.errors else 200
    return render_page(request, "people/activity.html", context, partials={"activity-table"}, status=status)


@require_GET
def activity_export(request: PortalRequest) -> HttpResponse | StreamingHttpResponse:
    """What the page would show, all pages of it, as CSV; that it was taken is kept, too."""
    form = ActivityForm(request.GET)
    if not form.is_valid():
        return render_page(request, "people/activity.html", {"form": form}, status=422)
    with acting(door=Door.PAGE, person=request.user):
        note_export(filters=form.filters, by=request.user)
    name = f"activity-{timezone.localdate().isoformat()}.csv"
    lines = activity_csv(reader=request.user, asked=form.asked)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)
