"""Tokens that must open nothing: forged, unsigned, of another time, place or purpose."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import OctKey

from arm_api import tokens
from tests.arm_api.programs import Program


def claims_of(token: str) -> dict[str, Any]:
    """What a token says."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


def forged(program: Program, *, key: bytes | None = None, algorithm: str = "HS256", **changes: Any) -> str:
    """A token of the program's with other claims, signed by the portal's key or by another."""
    claims = claims_of(program.token()) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    own = tokens._key("tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789")
    signed_by = OctKey.import_key(key) if key else own
    return jwt.encode({"alg": algorithm, "typ": "JWT"}, claims, signed_by, algorithms=[algorithm])


def unsigned(program: Program, algorithm: str) -> str:
    """A token of the program's without a signature."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).rstrip(b"=").decode()
    return f"{head}.{program.token().split('.')[1]}."


def misused(program: Program, how: str) -> str:
    """A token that must open nothing."""
    head, body, signature = program.token().split(".")
    nothing: dict[str, Any] = dict.fromkeys(claims_of(program.token()))
    return {
        "no token": "",
        "garbage": "garbage",
        "two parts": f"{head}.{body}",
        "too long": "a" * 10_000,
        "alg none": unsigned(program, "none"),
        "alg NONE": unsigned(program, "NONE"),
        "no signature": f"{head}.{body}.",
        "another signature": f"{head}.{body}.{signature[::-1]}",
        "another algorithm": forged(program, algorithm="HS512", key=b"k" * 64),
        "wrong key": forged(program, key=b"k" * 32),
        "empty claims": forged(program, **nothing),
        "expired": forged(program, exp=1),
        "not yet valid": forged(program, nbf=4_000_000_000),
        "no end": forged(program, exp=None),
        "another audience": forged(program, aud="https://management.azure.com"),
        "no audience": forged(program, aud=None),
        "another issuer": forged(program, iss="https://sts.windows.net/"),
        "another tenant": forged(program, tid=str(uuid4())),
        "another client": forged(program, appid=str(uuid4())),
        "client is no id": forged(program, appid=7),
        "another secret": forged(program, sid=program.secret_id + 1_000),
        "secret is no number": forged(program, sid="1 OR 1=1"),
        "secret is true": forged(program, sid=True),
        "secret beyond numbers": forged(program, sid=2**70),
    }[how]


CODES = {
    "no token": "AuthenticationFailed",
    "expired": "ExpiredAuthenticationToken",
    "another audience": "InvalidAuthenticationTokenAudience",
    "another issuer": "InvalidAuthenticationTokenAudience",
    "another tenant": "InvalidAuthenticationTokenTenant",
    "empty claims": "InvalidAuthenticationTokenTenant",
}
MISUSES = (
    *("no token", "garbage", "two parts", "too long", "alg none", "alg NONE", "no signature", "another signature"),
    *("another algorithm", "wrong key", "empty claims", "expired", "not yet valid", "no end", "another audience"),
    *("no audience", "another issuer", "another tenant", "another client", "client is no id", "another secret"),
    *("secret is no number", "secret is true", "secret beyond numbers"),
)
