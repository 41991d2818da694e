"""How people get an account: an administrator makes it; nobody signs up by themselves."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from hotpatch_portal.services import carry_stored


class PortalAccounts(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Accounts come from the admin site or from `createsuperuser`; sign-in brings what the user prefers."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 (the adapter's signature)
        """Nobody may sign up."""
        return False

    def post_login(self, request: HttpRequest, user: User, **options: Any) -> HttpResponse:
        """Go on as always, with what the user prefers put into the browser."""
        response: HttpResponse = super().post_login(request, user, **options)
        carry_stored(response, user=user)
        return response
