"""From a request to an answer: who asks, for what, how often; and everything that goes wrong in ARM's envelope."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from django.conf import settings
from django.db import DataError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation

from arm_api.callers import Caller, caller_of
from arm_api.calls import Answer, Call
from arm_api.errors import ArmCode, ArmError
from arm_api.limits import BUCKETS, Limit, Taken
from arm_api.routes import Route, check_version, find
from audit.context import acting
from audit.tags import Door

log = structlog.get_logger(__name__)
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CLIENT_ID = re.compile(r"[\w.:@/-]{1,128}", re.ASCII)


# --- limits ------------------------------------------------------------------------------------------------------


def _limit(name: str, burst: int, per_second: float) -> Limit:
    factor = settings.ARM_LIMIT_FACTOR
    return Limit(name, burst * factor, per_second * factor)


def _take(route: Route, call: Call) -> dict[str, str]:
    """Take the request out of its buckets; what is left, as headers. Raises ArmError 429."""
    caller = call.caller.account.pk
    verb = "writes" if route.is_write else "reads"
    general = BUCKETS.take(_limit(verb, *((200, 10) if route.is_write else (250, 25))), caller)
    _refuse_if_empty(general)
    headers = {f"x-ms-ratelimit-remaining-subscription-{verb}": str(general.left)}
    if not call.place.get("subscription"):
        return headers
    subscription, name = call.place["subscription"].lower(), call.place.get("name", "").lower()
    if route.is_patching:
        group = call.place["group"].lower()
        # A refused request counts as well.
        whole = BUCKETS.take(_limit("patch-subscription", 600, 200 / 60), subscription)
        each = BUCKETS.take(_limit("patch-resource", 6, 2 / 60), subscription, group, name)
        kind = "VMGuestPatchOperation"
    else:
        whole = BUCKETS.take(_limit("get-subscription", 15_000, 250), subscription)
        of = call.place.get("operation", name)
        each = BUCKETS.take(_limit("get-resource", 60, 2), subscription, of) if of else Taken(0)
        kind = "GetOperation" if route.is_poll else "LowCostGet"
    left = f"Microsoft.Compute/{kind}SubscriptionMaximum;{whole.left}"
    if name or route.is_poll:
        left += f",Microsoft.Compute/{kind}Resource;{each.left}"
    _refuse_if_empty(whole, each)
    return headers | {"x-ms-ratelimit-remaining-resource": left}


def _refuse_if_empty(*taken: Taken) -> None:
    waits = [one.retry_after for one in taken if one.is_empty]
    if waits:
        seconds = math.ceil(max(waits))
        message = f"The request was throttled. Please try again after {seconds} seconds."
        raise ArmError(ArmCode.TOO_MANY, message, headers={"Retry-After": str(seconds)})


# --- the way in --------------------------------------------------------------------------------------------------


def is_safe_transport(request: HttpRequest) -> bool:
    """Whether secrets and tokens may travel this way: over TLS, or without leaving this machine."""
    if request.is_secure():
        return True
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


def answer(request: HttpRequest) -> HttpResponse:
    """Answer a request of a program."""
    return guarded(request, lambda: _answered(request))


def _answered(request: HttpRequest) -> Answer:
    now = timezone.now()
    if not is_safe_transport(request):
        raise ArmError(ArmCode.TLS_REQUIRED, "Only https is answered here.")
    caller = caller_of(request, now=now)
    route, place = find(request.method or "", request.path_info)
    call = Call(request, caller, place, _version(request), route.action, now)
    check_version(route, call.version)
    told = _take(route, call)
    found = _handled(route, call, caller)
    return Answer(found.document, found.status, {**told, **found.headers}, found.request_id)


def _version(request: HttpRequest) -> str:
    given = {value for key in request.GET if key.lower() == "api-version" for value in request.GET.getlist(key)}
    if len(given) > 1:
        raise ArmError(ArmCode.INVALID_VERSION, "The api-version is given twice.")
    return given.pop() if given else ""


def _handled(route: Route, call: Call, caller: Caller) -> Answer:
    if not route.is_write:
        return route.handler(call)
    with acting(door=Door.API, person=caller.account):
        return route.handler(call)


def guarded(request: HttpRequest, work: Callable[[], Answer]) -> HttpResponse:
    """Do the work; whatever is refused comes back in the envelope, in English, with its request id."""
    with translation.override("en"):
        try:
            found = work()
        except ArmError as error:
            log.info("arm.refused", code=error.code.value, path=request.path[:200], method=request.method)
            found = Answer(error.document, error.code.status, error.headers)
        except DataError:
            unread = ArmError(ArmCode.BAD_REQUEST, "The request has a value that cannot be read.")
            found = Answer(unread.document, unread.code.status)
        except OperationalError:
            log.exception("arm.database")
            found = _unavailable()
    return respond(request, found)


def _unavailable() -> Answer:
    words = "The portal cannot answer at the moment. Please try again."
    return Answer({"error": {"code": "ServiceUnavailable", "message": words}}, 503, {"Retry-After": "5"})


def respond(request: HttpRequest, found: Answer) -> HttpResponse:
    """The answer as HTTP, with the headers that Azure puts on all of its own."""
    body = b"" if found.document is None else json.dumps(found.document, default=_text).encode()
    response = HttpResponse(body, status=found.status, content_type="application/json; charset=utf-8")
    if found.document is None:
        del response["Content-Type"]
    for name, value in {**_ids(request, found.request_id), **_FRESH, **found.headers}.items():
        response[name] = value
    return response


_FRESH: Mapping[str, str] = {"Cache-Control": "no-cache", "Pragma": "no-cache", "Expires": "-1"}


def _text(value: Any) -> str:
    if isinstance(value, (datetime, uuid.UUID)):
        return str(value)
    raise TypeError(value)


def _ids(request: HttpRequest, request_id: str) -> dict[str, str]:
    mine = request_id or str(uuid.uuid4())
    given = request.headers.get("x-ms-correlation-request-id", "")
    correlation = given if _GUID.fullmatch(given) else mine
    at = datetime.now(UTC)
    ids = {
        "x-ms-request-id": mine,
        "x-ms-correlation-request-id": correlation,
        "x-ms-routing-request-id": f"PORTAL:{at:%Y%m%dT%H%M%SZ}:{correlation}",
    }
    client = request.headers.get("x-ms-client-request-id", "")
    return ids | ({"x-ms-client-request-id": client} if _CLIENT_ID.fullmatch(client) else {})
