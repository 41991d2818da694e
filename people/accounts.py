"""How people get an account: an administrator makes it; nobody signs up by themselves."""

from __future__ import annotations

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.internal.ratelimit import truncate_ip
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from people.services import carry_stored
from vms.principal_models import ServicePrincipal


class PortalAccounts(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Accounts come from the admin site or from `createsuperuser`; sign-in brings what the user prefers."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 (the adapter's signature)
        """Nobody may sign up."""
        return False

    def authenticate(self, request: HttpRequest, **credentials: Any) -> User | None:
        """The person whose credentials these are. The account of a program never signs in, whatever password it has."""
        user: User | None = super().authenticate(request, **credentials)
        return None if user is not None and ServicePrincipal.objects.filter(pk=user.pk).exists() else user

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Failures are counted for a name and an address: from elsewhere nobody locks a person out."""
        key = super()._get_login_attempts_cache_key(request, **credentials)
        return f"{key}:{truncate_ip(self.get_client_ip(request))}"

    def post_login(self, request: HttpRequest, user: User, **options: Any) -> HttpResponse:
        """Go on as always, with what the user prefers put into the browser."""
        response: HttpResponse = super().post_login(request, user, **options)
        carry_stored(response, user=user)
        return response
