"""/service-principals/ (pages); /subscriptions, /tenants, /providers, /metadata and the token endpoints, in any case"""

from django.urls import path, re_path

from arm_api import views, views_principals


def _any_case(text: str) -> str:
    """A pattern for this text in any case (Django reverses no inline flags)."""
    return "".join(f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in text)


_TOPS = ("subscriptions", "tenants", "providers")
_TENANT = r"(?P<tenant>[\w.-]{1,60})"

app_name = "arm"
urlpatterns = [
    path("service-principals/", views_principals.principals, name="principals"),
    path("service-principals/create/", views_principals.create, name="principal-create"),
    path("service-principals/<int:pk>/", views_principals.principal, name="principal"),
    path("service-principals/<int:pk>/secret/", views_principals.make_secret, name="secret-make"),
    path("service-principals/<int:pk>/secret/<int:secret>/revoke/", views_principals.revoke, name="secret-revoke"),
    path("service-principals/<int:pk>/switch/", views_principals.switch, name="principal-switch"),
    *(re_path(rf"^{_any_case(top)}(?:/.*)?$", views.arm, name=top) for top in _TOPS),
    # az writes two slashes where its endpoint ends in one
    re_path(rf"^(?:/?){_any_case('metadata/endpoints')}/?$", views.endpoints, name="endpoints"),
    re_path(rf"^{_any_case('metadata/identity/oauth2/token')}/?$", views.identity, name="identity"),
    re_path(r"^common/discovery/instance/?$", views.instances, name="instances"),
    re_path(rf"^{_TENANT}(?:/v2\.0)?/\.well-known/openid-configuration/?$", views.discovery, name="discovery"),
    re_path(rf"^{_TENANT}/oauth2(?:/v2\.0)?/token/?$", views.token, name="token"),
    re_path(rf"^{_TENANT}/discovery/v2\.0/keys/?$", views.keys, name="keys"),
]
