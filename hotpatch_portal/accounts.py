"""How people get an account: an administrator makes it; nobody signs up by themselves."""

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class ClosedSignUp(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    """Refuse self-registration: accounts come from the admin site or from `createsuperuser`."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002 (the adapter's signature)
        """Nobody may sign up."""
        return False
