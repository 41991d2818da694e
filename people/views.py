"""Account (preferences, sessions), activity, what waits for the reader, and access: who holds which role where."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, override
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audit.context import acting
from audit.tags import Door
from people.forms import AccessForm, ActivityForm, AskForm, GiveForm, MailForm, PreferencesForm, place_words
from people.models import MailWishes, Preferences
from people.selectors.access import HeldRole, access_page, roles_seen_by, scopes_to_give, what_can
from people.selectors.activity import activity_csv, activity_page
from people.selectors.waiting import waiting_page
from people.services import carry, end_sessions, note_export, save_mail_wishes, save_preferences, sessions_of
from ui.http import PortalRequest
from ui.pages import in_a_tidy_address, render_page
from updates.models import BulkRequest
from updates.services.bulk_ends import mark_seen
from vms.choices import ROLES, SCOPES
from vms.list_answers import answer_list
from vms.models import Grants, RoleAssignment
from vms.selectors import Place, held_on, may_give_on
from vms.services.roles import Taken, give_role, take_role


@require_GET
def account(request: PortalRequest) -> HttpResponse:
    """What the reader prefers, and where the reader is signed in."""
    return _account_page(request, MailForm(instance=MailWishes.objects.filter(user=request.user).first()))


def _account_page(request: PortalRequest, mail: MailForm) -> HttpResponse:
    stored = Preferences.objects.filter(user=request.user).values().first()
    context = {
        "form": PreferencesForm(initial=stored),
        "mail": mail,
        "is_mail_sent": bool(settings.EMAIL_HOST),
        "sessions": sessions_of(user=request.user),
    }
    return render_page(request, "account/account.html", context, status=422 if mail.errors else 200)


@require_POST
def set_mail(request: PortalRequest) -> HttpResponse:
    """Of what the reader wants to be told by mail, and where."""
    form = MailForm(request.POST, instance=MailWishes.objects.filter(user=request.user).first())
    if not form.is_valid():
        return _account_page(request, form)
    save_mail_wishes(user=request.user, values=form.cleaned_data)
    messages.success(request, _("Your wishes for mail were saved."))
    return redirect("account")


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

    def find(asked: Any, cursor: str) -> Any:
        return activity_page(reader=request.user, asked=asked, cursor=cursor)

    return answer_list(request, "people/activity.html", ActivityForm(request.GET), find, part="activity-table")


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


@require_GET
def waiting(request: PortalRequest) -> HttpResponse:
    """What waits for the reader, each with its reason and where it is answered."""
    page = waiting_page(reader=request.user, now=timezone.now())
    return render_page(request, "people/waiting.html", {"page": page})


@require_POST
def waiting_seen(request: PortalRequest, pk: UUID) -> HttpResponse:
    """The reader has dealt with the failures of an own bulk request. Requests of others answer 404."""
    row = get_object_or_404(BulkRequest, pk=pk, requested_by=request.user)
    mark_seen(request_id=row.pk, by=request.user, now=timezone.now())
    return redirect("waiting")


@require_GET
@in_a_tidy_address
def access(request: PortalRequest) -> HttpResponse:
    """Who holds which role where, as far as the reader may see it."""

    def find(asked: Any, cursor: str) -> Any:
        return access_page(reader=request.user, asked=asked, cursor=cursor)

    return answer_list(request, "people/access.html", AccessForm(request.GET), find, part="access-table")


@require_http_methods(["GET", "POST"])
def access_give(request: PortalRequest) -> HttpResponse:
    """Give somebody a role on a place of one kind; who owns nothing gives nothing."""
    scopes = scopes_to_give(Grants.of(request.user))
    if not scopes:
        raise PermissionDenied
    asked = request.POST.get("scope") or request.GET.get("scope")
    scope = next((one for one in scopes if one == asked), scopes[-1])
    data = request.POST if request.method == "POST" else None
    form = GiveForm(data, giver=request.user, scope=scope)
    if form.is_valid():
        is_new = give_role(role=form.given, on=form.on, to=form.to, by=request.user)
        words = _("%(who)s is %(role)s there now.") if is_new else _("%(who)s was %(role)s there already.")
        messages.success(request, words % {"who": form.to, "role": dict(ROLES)[form.given]})
        return redirect("access")
    context = {"form": form, "scope": scope, "scopes": [(one, dict(SCOPES)[one]) for one in scopes]}
    return render_page(request, "people/access_give.html", context, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
def access_take(request: PortalRequest, pk: int) -> HttpResponse:
    """Take a role back, after a look at what that means."""
    grants = Grants.of(request.user)
    row = get_object_or_404(roles_seen_by(request.user, grants), pk=pk)
    if not may_give_on(grants, Place.of(held_on(row))):
        raise PermissionDenied
    if request.method == "POST":
        return _taken(request, take_role(assignment_id=pk, by=request.user), row)
    return render_page(request, "people/access_take.html", {"held": HeldRole(row, may_take=True)})


def _taken(request: PortalRequest, taken: Taken, row: RoleAssignment) -> HttpResponse:
    names = {"who": row.user or row.group, "role": row.get_role_display(), "place": place_words(held_on(row))}
    if taken is Taken.LAST_OWNER:
        context = {"held": HeldRole(row, may_take=True), "is_last_owner": True}
        return render_page(request, "people/access_take.html", context, status=409)
    messages.success(request, _("%(who)s is no longer %(role)s on %(place)s.") % names)
    return redirect("access")


@require_GET
@in_a_tidy_address
def access_check(request: PortalRequest) -> HttpResponse:
    """What can somebody do on a machine, and why."""
    form = AskForm(request.GET, asker=request.user)
    answer = what_can(form.about, form.chosen) if form.is_valid() else None
    status = 422 if form.errors else 200
    return render_page(request, "people/access_check.html", {"form": form, "answer": answer}, status=status)
