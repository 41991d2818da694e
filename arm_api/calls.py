"""A request to the door as its handlers get it, and what they answer with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from django.http import HttpRequest

from arm_api.callers import Caller, origin_of
from arm_api.errors import ArmCode, ArmError

MOST_BODY_BYTES = 256 * 1024
MOST_DEPTH = 32  # of objects and lists in each other; a virtual machine has 8
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Call:
    """One request of a caller for one route. `place` holds what stands in the path, as it was written."""

    request: HttpRequest
    caller: Caller
    place: Mapping[str, str]
    version: str
    action: str  # the permission that Azure asks for
    now: datetime

    @property
    def origin(self) -> str:
        """Scheme, host and port that the caller used."""
        return origin_of(self.request)

    @property
    def subscription_id(self) -> UUID:
        """The subscription of the path. Raises ArmError."""
        given = self.place["subscription"]
        try:
            return guid_of(given)
        except ValueError:
            message = f"The provided subscription identifier '{given}' is malformed or invalid."
            raise ArmError(ArmCode.INVALID_SUBSCRIPTION, message) from None

    def option(self, name: str) -> str:
        """A parameter of the query, whose name is compared without case; empty if it is not there. Raises ArmError."""
        values = {v for key in self.request.GET if key.lower() == name.lower() for v in self.request.GET.getlist(key)}
        if len(values) > 1:
            raise ArmError(ArmCode.INVALID_PARAMETER, f"The query parameter '{name}' is given twice.", target=name)
        return values.pop() if values else ""

    @cached_property
    def body(self) -> dict[str, Any]:
        """The JSON object of the request. Raises ArmError."""
        return read_object(self.request)


@dataclass(frozen=True)
class Answer:
    """What goes back. `document` None: an empty body. `request_id`: the operation that the answer is about."""

    document: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""


def guid_of(text: str) -> UUID:
    """The id that a text is, in the one form that clients of Azure write. Raises ValueError."""
    if not _GUID.fullmatch(text):
        raise ValueError(f"{text:.60} is no id")
    return UUID(text)


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The JSON object in a body of bounded size. Raises ArmError."""
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not declared.isdigit() or int(declared) > MOST_BODY_BYTES:
        raise ArmError(ArmCode.TOO_LARGE, f"The request is larger than {MOST_BODY_BYTES} bytes.")
    if request.content_type not in {"application/json", "text/json"}:
        raise ArmError(ArmCode.MEDIA_TYPE, "The content type must be application/json.")
    try:
        found = json.loads(request.body, object_pairs_hook=_unique, parse_constant=_no_constant)
        _check_texts(found)
    except (ValueError, RecursionError) as error:
        raise ArmError(ArmCode.INVALID_CONTENT, f"The request content was invalid: {error!s:.200}") from None
    if not isinstance(found, dict):
        raise ArmError(ArmCode.INVALID_CONTENT, "The request content was invalid: it must be a JSON object.")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ by more than their case: two readers could otherwise read two things in it."""
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name.lower() in seen:
            raise ValueError(f"the property '{name[:60]}' is given twice")
        seen.add(name.lower())
        found[name] = value
    return found


def _check_texts(found: object, depth: int = 0) -> None:
    """Refuse halves of characters, which no database holds, and what is nested deeper than any resource. Raises ValueError."""
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH}")
    if isinstance(found, str):
        try:
            found.encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half of a character") from None
    elif isinstance(found, dict):
        _check_texts([*found, *found.values()], depth)
    elif isinstance(found, list):
        for value in found:
            _check_texts(value, depth + 1)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
