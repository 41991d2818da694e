"""How the engine takes a failed answer: its code, whether it may be retried, and whether a start may have happened."""

from __future__ import annotations

import re

from connectors.azure.answers import Answer, NoAnswer, Silence, clean
from connectors.protocol import BucketNews, ConnectorError
from patching.codes import ErrorCode, storable_code

SIGN_IN_AGAIN_AFTER = 60.0
# How long to wait for a machine that is busy with something else, if the answer does not say.
BUSY_SECONDS = 60.0
_ACTION = re.compile(r"action '([A-Za-z0-9./*]{3,200})'")
# Codes of ARM that mean another operation of this machine, and nothing was begun.
_BUSY = frozenset(
    {
        *("operationnotallowed", "conflict", "anotheroperationinprogress", "operationinprogress"),
        *(
            "conflictingoperation",
            "vmguestpatchoperationinprogress",
            "extensionoperationinprogress",
            "preconditionfailed",
        ),
    }
)
_GONE = frozenset({"resourcenotfound", "resourcegroupnotfound", "notfound", "subscriptionnotfound"})
_NOT_RUNNING = re.compile(r"(vm|machine) to be running|not running|deallocated|powered off|is stopped", re.IGNORECASE)
_NO_AGENT = re.compile(
    r"(vm|guest) ?agent|agent .{0,40}not (ready|reporting)|status blob|(agent|machine) .{0,60}(not connected|disconnected|expired)",
    re.IGNORECASE,
)
# The counters of x-ms-ratelimit-remaining-resource that starts of patch operations draw on.
_COUNTER = re.compile(r"(?:^|,)\s*Microsoft\.[A-Za-z]+/([A-Za-z0-9]+);(-?[0-9]{1,9})")
_OF_ALL = re.compile(r"VMGuestPatchOperationSubscriptionMaximum|PatchOperation[0-9]+Min", re.IGNORECASE)
_OF_ONE = re.compile(r"VMGuestPatchOperationResource", re.IGNORECASE)


def silence(answer: NoAnswer, *, is_start: bool = False) -> ConnectorError:
    """The error of a call without an answer. A start that may have arrived is in doubt."""
    if answer.why is Silence.SIGN_IN:
        return ConnectorError(
            ErrorCode.CONNECTION_UNUSABLE,
            answer.detail,
            is_retryable=True,
            nothing_was_sent=is_start,
            retry_after=answer.retry_after or SIGN_IN_AGAIN_AFTER,
        )
    code = ErrorCode.CONNECTOR_UNREACHABLE if answer.why is Silence.UNREACHED else ErrorCode.CONNECTOR_TIMEOUT
    return ConnectorError(code, answer.detail, is_retryable=True, nothing_was_sent=is_start and not answer.was_sent)


def passing(answer: Answer | NoAnswer) -> ConnectorError | None:
    """The error of what may be answered at the next try: silence, a full budget, a fault of the server. None: of anything else."""
    if isinstance(answer, NoAnswer):
        return silence(answer)
    return refusal(answer) if answer.status == 429 or answer.status >= 500 else None


def refusal(answer: Answer, *, is_start: bool = False, bucket: str = "", own_bucket: str = "") -> ConnectorError:
    """The error for a failed answer. `bucket`: the budget that starts share, `own_bucket`: that of their machine.

    What ARM refused with a status of 4xx was not begun. With 5xx nobody knows.
    """
    code, message = answer.error
    detail = f"{code}: {message}".strip(": ")[:1_000] or f"HTTP {answer.status}"
    if answer.status == 429:
        return _throttled(answer, detail, is_start=is_start, bucket=bucket, own_bucket=own_bucket)
    if answer.status in {408, 425} or answer.status >= 500 or answer.status < 400:
        # A gateway answers for what lies behind it: whether that was reached is not known.
        known = ErrorCode.CONNECTOR_TIMEOUT if answer.status >= 400 else ErrorCode.CONNECTOR_GARBAGE
        return ConnectorError(known, detail, is_retryable=True, retry_after=answer.retry_after)
    if answer.status == 401:
        return ConnectorError(
            ErrorCode.CONNECTION_UNUSABLE,
            detail,
            is_retryable=True,
            nothing_was_sent=is_start,
            retry_after=answer.retry_after,
        )
    if answer.status == 403:
        return ConnectorError(
            ErrorCode.PERMISSION_MISSING, missing_permission(message) or detail, nothing_was_sent=is_start
        )
    if answer.status in {404, 410} or code.lower() in _GONE:
        return ConnectorError(ErrorCode.VM_GONE, detail, nothing_was_sent=is_start)
    return _refused(answer, code, message, detail, is_start=is_start)


def _refused(answer: Answer, code: str, message: str, detail: str, *, is_start: bool) -> ConnectorError:
    if _NOT_RUNNING.search(message):
        return ConnectorError(ErrorCode.VM_NOT_RUNNING, detail, nothing_was_sent=is_start)
    if code.lower().startswith("vmagent") or _NO_AGENT.search(message):
        return ConnectorError(ErrorCode.AGENT_NOT_READY, detail, nothing_was_sent=is_start)
    if code.lower() in _BUSY:
        return ConnectorError(
            ErrorCode.VM_BUSY,
            detail,
            is_retryable=True,
            nothing_was_sent=is_start,
            retry_after=answer.retry_after or BUSY_SECONDS,
        )
    own = storable_code(code) if code else ErrorCode.CONNECTOR_GARBAGE.value
    return ConnectorError(own, detail, nothing_was_sent=is_start)


def _throttled(answer: Answer, detail: str, *, is_start: bool, bucket: str, own_bucket: str) -> ConnectorError:
    left = counters(answer)
    is_own = any(_OF_ONE.search(name) and count <= 0 for name, count in left) and not any(
        _OF_ALL.search(name) and count <= 0 for name, count in left
    )
    return ConnectorError(
        ErrorCode.CONNECTOR_THROTTLED,
        detail,
        is_retryable=True,
        nothing_was_sent=is_start,
        retry_after=answer.retry_after,
        bucket=(own_bucket if is_own else bucket) if is_start else None,
    )


def counters(answer: Answer) -> list[tuple[str, int]]:
    """What the answer says is left, by the name of the counter."""
    told = answer.headers.get("x-ms-ratelimit-remaining-resource", "")
    return [(name, int(count)) for name, count in _COUNTER.findall(told[:2_000])]


def news(answer: Answer, bucket: str) -> tuple[BucketNews, ...]:
    """What a start that was taken says about the budget it shares."""
    left = [count for name, count in counters(answer) if _OF_ALL.search(name)]
    return (BucketNews(bucket, remaining=min(left)),) if left else ()


def missing_permission(message: str) -> str:
    """The action that a refusal of ARM names; empty where it names none."""
    found = _ACTION.search(message)
    return clean(found[1]) if found else ""
