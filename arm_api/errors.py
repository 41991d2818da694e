"""Errors as Azure Resource Manager words them: one enum of codes, one exception, one envelope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

from patching.codes import ErrorCode
from updates.texts import error_text


class ArmCode(StrEnum):
    """Why a request is refused, in Azure's spelling. `status` is the HTTP status that goes with it."""

    status: int

    def __new__(cls, value: str, status: int) -> Self:
        """Make a member from its value and its HTTP status."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        return member

    # who asks
    AUTHENTICATION_FAILED = "AuthenticationFailed", 401
    INVALID_TOKEN = "InvalidAuthenticationToken", 401
    EXPIRED_TOKEN = "ExpiredAuthenticationToken", 401
    OTHER_TENANT = "InvalidAuthenticationTokenTenant", 401
    OTHER_AUDIENCE = "InvalidAuthenticationTokenAudience", 401
    AUTHORIZATION_FAILED = "AuthorizationFailed", 403
    TLS_REQUIRED = "HttpsRequired", 403

    # what is asked for
    INVALID_SUBSCRIPTION = "InvalidSubscriptionId", 400
    MISSING_VERSION = "MissingApiVersionParameter", 400
    INVALID_VERSION = "InvalidApiVersionParameter", 400
    NO_PROVIDER = "NoRegisteredProviderFound", 400
    INVALID_TYPE = "InvalidResourceType", 404
    SUBSCRIPTION_NOT_FOUND = "SubscriptionNotFound", 404
    GROUP_NOT_FOUND = "ResourceGroupNotFound", 404
    RESOURCE_NOT_FOUND = "ResourceNotFound", 404
    NOT_FOUND = "NotFound", 404
    METHOD_NOT_ALLOWED = "MethodNotAllowed", 405

    # how it is asked
    INVALID_PARAMETER = "InvalidParameter", 400
    INVALID_CONTENT = "InvalidRequestContent", 400
    BAD_REQUEST = "BadRequest", 400
    PROPERTY_CHANGE = "PropertyChangeNotAllowed", 409
    OPERATION_NOT_ALLOWED = "OperationNotAllowed", 409
    PRECONDITION_FAILED = "PreconditionFailed", 412
    TOO_LARGE = "RequestEntityTooLarge", 413
    MEDIA_TYPE = "UnsupportedMediaType", 415
    TOO_MANY = "TooManyRequests", 429


class ArmError(Exception):
    """This request is refused. `target` names the part of it that is at fault, `details` further faults."""

    def __init__(
        self,
        code: ArmCode,
        message: str,
        *,
        target: str = "",
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code.value}: {message}")
        self.code, self.message, self.target = code, message, target
        self.details, self.headers = tuple(details), dict(headers or {})

    @property
    def document(self) -> dict[str, Any]:
        """The envelope."""
        error: dict[str, Any] = {"code": self.code.value, "message": self.message}
        if self.target:
            error["target"] = self.target
        if self.details:
            error["details"] = [dict(detail) for detail in self.details]
        return {"error": error}


def invalid(message: str, target: str) -> ArmError:
    """A parameter or property has a value that means nothing."""
    return ArmError(ArmCode.INVALID_PARAMETER, message, target=target)


def refused(code: str) -> ArmError:
    """A service of the portal refused the request for this machine; its own code stands among the details."""
    text = error_text(code)
    message = " ".join(str(part) for part in (text.title, text.advice) if part)
    return ArmError(
        ArmCode.OPERATION_NOT_ALLOWED, message, details=[{"code": ErrorCode.of(code).value, "message": str(text.title)}]
    )
