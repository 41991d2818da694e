"""The tokens of programs: short-lived JWTs that this portal signs for itself (docs/adr/0013).

A token says for which secret it was issued. Whether that secret still opens anything is asked at every request.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils.crypto import salted_hmac
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError
from joserfc.jwk import OctKey

from vms.principal_models import PrincipalSecret

LIFETIME = timedelta(minutes=15)
MOST_CHARACTERS = 4_096
_ALGORITHM = "HS256"
_LEEWAY_SECONDS = 5  # between the clocks of web servers


class TokenError(ValueError):
    """This is no token of ours for this address now."""


class ExpiredError(TokenError):
    """It was one."""


class OtherTenantError(TokenError):
    """It names another tenant."""


class OtherAudienceError(TokenError):
    """It was issued for another address."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """The principal that a token was issued to, and the secret that it was issued for."""

    app_id: UUID
    secret_id: int


@lru_cache(maxsize=8)
def _key(secret_key: str) -> OctKey:
    return OctKey.import_key(salted_hmac("arm_api.tokens", "", secret=secret_key, algorithm="sha256").digest())


def tenant_id() -> UUID:
    """The id by which clients name this portal where Azure has a tenant."""
    return _tenant(settings.TENANT_ID, settings.SECRET_KEY)


@lru_cache(maxsize=8)
def _tenant(given: str, secret_key: str) -> UUID:
    if given:
        return UUID(given)
    digest = salted_hmac("arm_api.tenant", "", secret=secret_key, algorithm="sha256").digest()
    return UUID(bytes=digest[:16], version=4)


def issue(secret: PrincipalSecret, *, origin: str, now: datetime) -> str:
    """A token for this secret that opens the door at this origin (https://host:port) until `now` + LIFETIME."""
    principal = secret.principal
    identity = str(uuid.uuid5(tenant_id(), str(principal.app_id)))
    claims: dict[str, Any] = {
        "aud": origin,
        "iss": f"{origin}/{tenant_id()}/",
        "iat": int(now.timestamp()),
        "nbf": int(now.timestamp()),
        "exp": int((now + LIFETIME).timestamp()),
        "appid": str(principal.app_id),
        "idtyp": "app",
        "oid": identity,
        "sub": identity,
        "sid": secret.pk,
        "tid": str(tenant_id()),
        "ver": "1.0",
    }
    return jwt.encode({"alg": _ALGORITHM, "typ": "JWT"}, claims, _key(settings.SECRET_KEY), algorithms=[_ALGORITHM])


def read(token: str, *, origin: str, now: datetime) -> Bearer:
    """The principal that this token was issued to. Raises TokenError for a token that `issue` did not make for this origin."""
    if len(token) > MOST_CHARACTERS:
        raise TokenError("longer than any token of ours")
    try:
        claims = jwt.decode(token, _key(settings.SECRET_KEY), algorithms=[_ALGORITHM]).claims
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TokenError(type(error).__name__) from None
    tenant = str(tenant_id())
    if claims.get("tid") != tenant:
        raise OtherTenantError(str(claims.get("tid"))[:40])
    registry = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=_LEEWAY_SECONDS,
        iss={"essential": True, "value": f"{origin}/{tenant}/"},
        aud={"essential": True, "value": origin},
        exp={"essential": True},
        nbf={"essential": True},
    )
    try:
        registry.validate(claims)
        return Bearer(UUID(claims["appid"]), _number(claims["sid"]))
    except ExpiredTokenError:
        raise ExpiredError from None
    except InvalidClaimError as error:
        raise (OtherAudienceError if error.claim in {"aud", "iss"} else TokenError)(str(error)) from None
    except (JoseError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise TokenError(type(error).__name__) from None


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise TypeError(value)
    return value
