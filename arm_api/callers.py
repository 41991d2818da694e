"""Who asks: the principal behind a bearer token, looked up at every request, so that revoked means now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NoReturn
from uuid import UUID

from django.contrib.auth.models import User
from django.http import HttpRequest

from arm_api import tokens
from arm_api.errors import ArmCode, ArmError
from vms.choices import Role
from vms.models import Grants, VirtualMachine
from vms.selectors import secret_by_id

_TROUBLES: dict[type[tokens.TokenError], tuple[ArmCode, str]] = {
    tokens.ExpiredError: (ArmCode.EXPIRED_TOKEN, "The access token has expired."),
    tokens.OtherTenantError: (ArmCode.OTHER_TENANT, "The access token is from another tenant than this portal's."),
    tokens.OtherAudienceError: (ArmCode.OTHER_AUDIENCE, "The access token was issued for another address."),
}


@dataclass(frozen=True)
class Caller:
    """A program that asks, by the account of its principal."""

    account: User
    app_id: UUID

    @cached_property
    def grants(self) -> Grants:
        """What it was granted (one query)."""
        return Grants.of(self.account)

    def roles_on(self, vm: VirtualMachine) -> frozenset[Role]:
        """Every role that it holds on a machine whose group is loaded."""
        return self.grants.roles_on(vm)


def origin_of(request: HttpRequest) -> str:
    """The address that the request came to: scheme, host and port."""
    return f"{request.scheme}://{request.get_host()}".lower()


def caller_of(request: HttpRequest, *, now: datetime) -> Caller:
    """The principal whose valid token the request brings. Raises ArmError 401."""
    origin = origin_of(request)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not token.strip():
        _refuse(ArmCode.AUTHENTICATION_FAILED, "Authentication failed. The 'Authorization' header is missing.", origin)
    if scheme.lower() != "bearer":
        _refuse(ArmCode.AUTHENTICATION_FAILED, "Authentication failed. Only bearer tokens are accepted.", origin)
    try:
        bearer = tokens.read(token.strip(), origin=origin, now=now)
    except tokens.TokenError as error:
        code, words = _TROUBLES.get(type(error), (ArmCode.INVALID_TOKEN, "The access token is invalid."))
        _refuse(code, words, origin)
    secret = secret_by_id(bearer.secret_id, app_id=bearer.app_id, now=now)
    if secret is None:
        _refuse(ArmCode.INVALID_TOKEN, "The secret of this access token was revoked, or its principal is off.", origin)
    return Caller(secret.principal.account, bearer.app_id)


def _refuse(code: ArmCode, words: str, origin: str) -> NoReturn:
    told = (
        f'Bearer authorization_uri="{origin}/{tokens.tenant_id()}", error="invalid_token", error_description="{words}"'
    )
    raise ArmError(code, words, headers={"WWW-Authenticate": told})
