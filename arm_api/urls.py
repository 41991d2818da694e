"""/subscriptions, /tenants, /providers, /metadata, and the token endpoints; in any case of letters"""

from django.urls import re_path

from arm_api import views


def _any_case(text: str) -> str:
    """A pattern for this text in any case (Django reverses no inline flags)."""
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in text)


_TOPS = "|".join(map(_any_case, ("subscriptions", "tenants", "providers")))
_TENANT = r"(?P<tenant>[\w.-]{1,60})"

app_name = "arm"
urlpatterns = [
    re_path(rf"^(?:{_TOPS})(?:/.*)?$", views.arm, name="arm"),
    # az writes two slashes where its endpoint ends in one
    re_path(rf"^(?:/?){_any_case('metadata/endpoints')}/?$", views.endpoints, name="endpoints"),
    re_path(rf"^{_any_case('metadata/identity/oauth2/token')}/?$", views.identity, name="identity"),
    re_path(r"^common/discovery/instance/?$", views.instances, name="instances"),
    re_path(rf"^{_TENANT}(?:/v2\.0)?/\.well-known/openid-configuration/?$", views.discovery, name="discovery"),
    re_path(rf"^{_TENANT}/oauth2(?:/v2\.0)?/token/?$", views.token, name="token"),
    re_path(rf"^{_TENANT}/discovery/v2\.0/keys/?$", views.keys, name="keys"),
]
