"""How programs get a token: client credentials as MSAL asks for them, and the way of a managed identity."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from arm_api.callers import origin_of
from arm_api.calls import Answer
from arm_api.limits import BUCKETS, Limit
from arm_api.tokens import LIFETIME, issue, tenant_id
from vms.principal_models import PrincipalSecret
from vms.selectors import secret_by_text
from vms.services.principals import note_use

Work = Callable[[], Answer]
MOST_CHARACTERS = 200  # of a secret that is looked for
# Whoever guesses at 256 random bits may guess; what this protects is the database.
_ASKED = Limit("sign-in", 120, 10)


def _refusal(code: str, words: str, status: int = 400, **headers: str) -> Answer:
    """As OAuth says it, and (`statusCode`, `message`) as the identity endpoints of Azure's platforms do."""
    told = {"error": code, "error_description": words, "statusCode": status, "message": words}
    return Answer(told, status, headers)


def address_of(request: HttpRequest) -> str:
    """Where the request came from, as far as the proxies before the portal are believed."""
    proxies: int = settings.ALLAUTH_TRUSTED_PROXY_COUNT
    passed = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    known = passed[-proxies] if proxies and len(passed) >= proxies else request.META.get("REMOTE_ADDR", "")
    return str(known)


def _is_too_often(request: HttpRequest) -> bool:
    return BUCKETS.take(_ASKED, address_of(request)).is_empty


def client_credentials(request: HttpRequest, tenant: str, *, now: datetime) -> Answer:
    """The token endpoint: `grant_type=client_credentials` with the client id and one of its secrets."""
    if _is_too_often(request):
        return _refusal("temporarily_unavailable", "Too many requests.", 429, **{"Retry-After": "1"})
    form = request.POST
    if not _is_this_tenant(tenant):
        return _refusal("invalid_request", f"AADSTS90002: Tenant '{tenant[:60]}' not found.")
    if form.get("grant_type") != "client_credentials":
        return _refusal("unsupported_grant_type", "AADSTS70003: Only client_credentials is supported.")
    if not _is_for_us(request, form.get("scope", "") or form.get("resource", "")):
        return _refusal("invalid_target", "AADSTS500011: The resource is not this portal.")
    secret = _found(form.get("client_secret", ""), form.get("client_id", ""), now)
    if secret is None:
        return _refusal("invalid_client", "AADSTS7000215: Invalid client id or client secret provided.", 401)
    return Answer(_issued(request, secret, now) | {"ext_expires_in": int(LIFETIME.total_seconds())})


def managed_identity(request: HttpRequest, *, now: datetime) -> Answer:
    """What IDENTITY_ENDPOINT answers. The header that App Service calls a secret is a secret of a principal here."""
    if _is_too_often(request):
        return _refusal("temporarily_unavailable", "Too many requests.", 429, **{"Retry-After": "1"})
    given = request.headers.get("X-IDENTITY-HEADER", "") or request.headers.get("Secret", "")
    secret = _found(given, request.GET.get("client_id", ""), now)
    if secret is None:
        return _refusal("invalid_client", "The identity header is not a valid secret of a service principal.", 401)
    resource = request.GET.get("resource", "")
    if not _is_for_us(request, resource):
        return _refusal("invalid_resource", "The resource is not this portal.")
    expires_on = int((now + LIFETIME).timestamp())
    more = {"expires_on": str(expires_on), "expires_in": str(int(LIFETIME.total_seconds())), "resource": resource}
    return Answer(_issued(request, secret, now) | more | {"client_id": str(secret.principal.app_id)})


def _issued(request: HttpRequest, secret: PrincipalSecret, now: datetime) -> dict[str, Any]:
    note_use(secret_id=secret.pk, now=now)
    token = issue(secret, origin=origin_of(request), now=now)
    return {"token_type": "Bearer", "expires_in": int(LIFETIME.total_seconds()), "access_token": token}


def _found(text: str, app_id: str, now: datetime) -> PrincipalSecret | None:
    """The usable secret of this text, of this client where one is named."""
    if not 0 < len(text) <= MOST_CHARACTERS:
        return None
    try:
        wanted = UUID(app_id) if app_id else None
    except ValueError:
        return None
    return secret_by_text(text, now=now, app_id=wanted)


def _is_this_tenant(tenant: str) -> bool:
    return tenant.lower() in {str(tenant_id()), "adfs"}


def _is_for_us(request: HttpRequest, resource: str) -> bool:
    """Whether a scope (`https://host:port/.default`) or a resource is the very address that was asked."""
    wanted = resource.split()[0] if resource.split() else ""
    try:
        parts = urlsplit(wanted.removesuffix("/.default"))
    except ValueError:
        return False
    return f"{parts.scheme}://{parts.netloc}".lower() == origin_of(request) and parts.path.strip("/") == ""


def discovery(request: HttpRequest, tenant: str) -> Answer:
    """The OpenID configuration of this tenant: where MSAL finds the token endpoint.

    The tenants "common" and "organizations" mean the only one; `az logout` asks for the second.
    """
    is_unnamed = tenant.lower() in {"common", "organizations"}
    if not (is_unnamed or _is_this_tenant(tenant)):
        return _refusal("invalid_tenant", f"AADSTS90002: Tenant '{tenant[:60]}' not found.")
    origin, own = origin_of(request), str(tenant_id()) if is_unnamed else tenant.lower()
    return Answer(
        {
            "token_endpoint": f"{origin}/{own}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "grant_types_supported": ["client_credentials"],
            "authorization_endpoint": f"{origin}/{own}/oauth2/v2.0/authorize",
            "issuer": f"{origin}/{own}/v2.0",
            "jwks_uri": f"{origin}/{own}/discovery/v2.0/keys",
            "response_types_supported": ["token"],
            "subject_types_supported": ["pairwise"],
            "tenant_region_scope": None,
        }
    )


def instances(request: HttpRequest) -> Answer:
    """Instance discovery: this portal is an authority of its own."""
    host = urlsplit(origin_of(request)).netloc
    return Answer(
        {
            "tenant_discovery_endpoint": f"{origin_of(request)}/{tenant_id()}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
        }
    )


def endpoints(request: HttpRequest) -> Answer:
    """What `az cloud register` and Terraform ask first: where everything is."""
    origin = origin_of(request)
    document = {
        "name": "HotpatchPortal",
        "portal": origin,
        "resourceManager": f"{origin}/",
        "authentication": {
            "loginEndpoint": origin,
            "audiences": [f"{origin}/", origin],
            "tenant": str(tenant_id()),
            "identityProvider": "AAD",
        },
        "graphAudience": f"{origin}/",
        "graph": f"{origin}/",
        "suffixes": {},
    }
    is_list = request.GET.get("api-version", "") < "2022-09-01"
    return Answer([document] if is_list else document)
