"""Where programs come in. They bring tokens, no cookies: there is no session here and nothing to forge."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from arm_api import signin
from arm_api.calls import Answer
from arm_api.door import answer, guarded, is_safe_transport
from arm_api.errors import ArmCode, ArmError


@csrf_exempt
@login_not_required
def arm(request: HttpRequest) -> HttpResponse:
    """Azure Resource Manager."""
    return answer(request)


@csrf_exempt
@login_not_required
@require_POST
def token(request: HttpRequest, tenant: str) -> HttpResponse:
    """The token endpoint."""
    return _private(request, lambda: signin.client_credentials(request, tenant, now=timezone.now()))


@login_not_required
@require_GET
def identity(request: HttpRequest) -> HttpResponse:
    """IDENTITY_ENDPOINT."""
    return _private(request, lambda: signin.managed_identity(request, now=timezone.now()))


@login_not_required
@require_GET
def discovery(request: HttpRequest, tenant: str) -> HttpResponse:
    """The OpenID configuration."""
    return guarded(request, lambda: signin.discovery(request, tenant))


@login_not_required
@require_GET
def instances(request: HttpRequest) -> HttpResponse:
    """Instance discovery."""
    return guarded(request, lambda: signin.instances(request))


@login_not_required
@require_GET
def keys(request: HttpRequest, tenant: str) -> HttpResponse:  # noqa: ARG001 (of the address)
    """No keys: only this portal reads its tokens."""
    return guarded(request, lambda: Answer({"keys": []}))


@login_not_required
@require_GET
def endpoints(request: HttpRequest) -> HttpResponse:
    """Where everything is, for clients that know this address alone."""
    return guarded(request, lambda: signin.endpoints(request))


def _private(request: HttpRequest, work: signin.Work) -> HttpResponse:
    """Refuse requests without TLS, since they carry secrets, and forbid caches to keep the answer."""

    def safely() -> Answer:
        if not is_safe_transport(request):
            raise ArmError(ArmCode.TLS_REQUIRED, "Only https is answered here.")
        return work()

    response = guarded(request, safely)
    response["Cache-Control"] = "no-store"
    return response
