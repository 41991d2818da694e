"""Pages of service principals, for Owners of everything. A secret is shown in the answer that makes it, and never again."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from arm_api.forms import PrincipalForm, SecretForm
from arm_api.tokens import tenant_id
from ui.http import PortalRequest
from ui.pages import render_page
from vms.choices import Role
from vms.principal_models import ServicePrincipal
from vms.selectors import listed_principals, owns_everything, roles_of
from vms.services.principals import (
    PrincipalExistsError,
    TooManySecretsError,
    add_secret,
    create_principal,
    revoke_secret,
    switch_principal,
)

P = ParamSpec("P")


def for_owners(
    view: Callable[Concatenate[PortalRequest, P], HttpResponse],
) -> Callable[Concatenate[PortalRequest, P], HttpResponse]:
    """Only who owns everything may let programs in."""

    @wraps(view)
    def checked(request: PortalRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not owns_everything(request.user):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return checked


@require_GET
@for_owners
def principals(request: PortalRequest) -> HttpResponse:
    """All of them."""
    return render_page(request, "arm_api/principals.html", {"principals": listed_principals(timezone.now())})


@require_http_methods(["GET", "POST"])
@for_owners
def create(request: PortalRequest) -> HttpResponse:
    """Make one, with a role and a first secret."""
    form = PrincipalForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid():
        said = form.cleaned_data
        try:
            made = create_principal(name=said["name"], role=Role(said["role"]), on=said["scope"])
        except PrincipalExistsError:
            form.say_name_is_taken()
        else:
            return _with_secret(request, made, said)
    return render_page(request, "arm_api/principal_create.html", {"form": form}, status=422 if form.errors else 200)


@require_GET
@for_owners
def principal(request: PortalRequest, pk: int) -> HttpResponse:
    """One: how clients name it, its roles, its secrets."""
    return _page(request, get_object_or_404(ServicePrincipal, pk=pk), SecretForm())


@require_POST
@for_owners
def make_secret(request: PortalRequest, pk: int) -> HttpResponse:
    """A further secret."""
    found, form = get_object_or_404(ServicePrincipal, pk=pk), SecretForm(request.POST)
    if not form.is_valid():
        return _page(request, found, form, status=422)
    return _with_secret(request, found, form.cleaned_data)


@require_POST
@for_owners
def revoke(request: PortalRequest, pk: int, secret: int) -> HttpResponse:
    """Let a secret open nothing from now on."""
    found = get_object_or_404(ServicePrincipal, pk=pk)
    if revoke_secret(principal=found, secret_id=secret, now=timezone.now()):
        messages.success(request, _("The secret was revoked. It opens nothing from now on."))
    else:
        messages.info(request, _("The secret was revoked before."))
    return redirect("arm:principal", pk)


@require_POST
@for_owners
def switch(request: PortalRequest, pk: int) -> HttpResponse:
    """Switch a principal off or on."""
    switch_principal(principal=get_object_or_404(ServicePrincipal, pk=pk), is_on="on" in request.POST)
    return redirect("arm:principal", pk)


def _with_secret(request: PortalRequest, found: ServicePrincipal, said: dict[str, Any]) -> HttpResponse:
    """The page with a new secret on it, this once; nothing keeps the answer."""
    try:
        _secret, text = add_secret(principal=found, days=said["days"], label=said["label"])
    except TooManySecretsError:
        messages.warning(request, _("It has as many valid secrets as it may have: revoke one first."))
        return redirect("arm:principal", found.pk)
    response = _page(request, found, SecretForm(), secret=text)
    response["Cache-Control"] = "no-store"
    return response


def _page(
    request: PortalRequest, found: ServicePrincipal, form: SecretForm, *, secret: str = "", status: int = 200
) -> HttpResponse:
    context = {"principal": found, "form": form, "secret": secret, "tenant": tenant_id(), "now": timezone.now()}
    context |= {"secrets": found.secrets.all()[:100], "roles": roles_of(found)}
    return render_page(request, "arm_api/principal.html", context, status=status)
