"""Preferences and sessions of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.http.response import HttpResponseBase

from audit.services import Act, record
from audit.tags import Tag
from people.models import MailWishes, Preferences
from ui.preferences import CHOSEN_TIME_ZONE_COOKIE, DENSITY_COOKIE, THEME_COOKIE, remember

_COOKIES = {
    "language": settings.LANGUAGE_COOKIE_NAME,
    "time_zone": CHOSEN_TIME_ZONE_COOKIE,
    "theme": THEME_COOKIE,
    "density": DENSITY_COOKIE,
}


def save_preferences(*, user: User, values: Mapping[str, str]) -> None:
    """Keep these preferences (by field) of a user; the others stay as they are."""
    Preferences.objects.update_or_create(user=user, defaults=dict(values))


def carry(response: HttpResponseBase, *, values: Mapping[str, str]) -> None:
    """Put these preferences (by field) into the browser."""
    for name, value in values.items():
        remember(response, _COOKIES[name], value)


def carry_stored(response: HttpResponseBase, *, user: User) -> None:
    """Put what the user prefers into the browser; who never chose anything keeps what the browser has."""
    stored = Preferences.objects.filter(user=user).values_list(*_COOKIES).first()
    if stored is not None:
        carry(response, values=dict(zip(_COOKIES, stored, strict=True)))


def save_mail_wishes(*, user: User, values: Mapping[str, Any]) -> None:
    """Keep what the user wants to be told by mail (by field)."""
    MailWishes.objects.update_or_create(user=user, defaults=dict(values))


def sessions_of(*, user: User) -> list[UserSession]:
    """Where the user is signed in, the latest first; sessions that have ended are forgotten."""
    sessions: list[UserSession] = UserSession.objects.purge_and_list(user)
    return sorted(sessions, key=lambda session: session.created_at, reverse=True)


@transaction.atomic
def end_sessions(*, user: User, keep: str, session_id: int | None = None) -> int:
    """Sign the user out in one session, or (None) in every one but `keep` (a session key); how many ended."""
    rows = UserSession.objects.filter(user=user).exclude(session_key=keep)
    if session_id is not None:
        rows = rows.filter(pk=session_id)
    ended = list(rows)
    for session in ended:
        session.end()
    if ended:
        name, detail = user.get_username(), {"sessions": len(ended)}
        record(acts=[Act(Tag.SESSION_END, object_id=str(user.pk), object_name=name, detail=detail)], by=user)
    return len(ended)


def note_export(*, filters: Mapping[str, str], by: User) -> None:
    """Keep that somebody takes the activity out of the portal."""
    record(acts=[Act(Tag.ACTIVITY_EXPORT, detail={"filters": dict(filters)})], by=by)
