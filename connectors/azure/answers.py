"""What the other side answered, or that it did not; and reading JSON that may be anything. No SDK is imported here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

MOST_BYTES = 32 * 1024 * 1024  # of one answer; a page of machines has some megabytes
_MOST_TEXT = 4_000


class Silence(StrEnum):
    """Why there is no answer."""

    UNREACHED = "unreached"  # no connection, or none that can be trusted
    TOO_LONG = "too_long"
    CUT_OFF = "cut_off"
    SIGN_IN = "sign_in"  # no token was to be had


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A call without an answer. `was_sent`: the request, or a part of it, may have arrived."""

    why: Silence
    was_sent: bool
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body as an object; empty if the body is something else."""
        try:
            found = json.loads(self.body) if self.body else {}
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_json(self) -> bool:
        """Whether the body is an object, and says something."""
        return bool(self.json)

    @property
    def error(self) -> tuple[str, str]:
        """Code and message of ARM's error, as far as there is one."""
        found = self.json.get("error")
        error = found if isinstance(found, dict) else self.json
        return text_of(error, "code"), text_of(error, "message")

    @property
    def retry_after(self) -> float | None:
        """The pause that was asked for, in seconds; None where none can be read."""
        return seconds_of(self.headers.get("retry-after"), self.headers.get("date"))


def seconds_of(told: str | None, date: str | None = None) -> float | None:
    """A pause in seconds: a number, or the moment until which it lasts; None for anything else."""
    if told is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", told.strip()):
        return float(told)
    until, now = _http_moment(told), _http_moment(date or "")
    return max(0.0, (until - now).total_seconds()) if until and now else None


def _http_moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.strip(), "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None


# --- JSON that may be anything ---------------------------------------------------------------------------------------


def find(value: object, path: str) -> object:
    """What lies at a dotted path, names compared without case; None where nothing does."""
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value[key] if key in value else next((v for k, v in value.items() if k.lower() == key.lower()), None)
    return value


def text_of(value: object, path: str) -> str:
    """The text there, as it can be kept; empty where there is none."""
    found = find(value, path)
    return clean(found) if isinstance(found, str) else ""


def clean(text: str) -> str:
    """Text that a database can hold."""
    return text[:_MOST_TEXT].replace("\x00", "").encode(errors="replace").decode()


def flag_of(value: object, path: str) -> bool | None:
    """True or false; None where it says neither."""
    found = find(value, path)
    return found if isinstance(found, bool) else None


def objects_of(value: object, path: str) -> Iterator[dict[str, Any]]:
    """The objects of the list there."""
    found = find(value, path)
    yield from (one for one in (found if isinstance(found, list) else []) if isinstance(one, dict))


_FRACTION = re.compile(r"(\.\d{1,6})\d*")


def moment_of(value: object, path: str) -> datetime | None:
    """The instant there, in UTC; Azure writes seven digits of a second, Z or an offset, or neither."""
    text = text_of(value, path)
    if not text:
        return None
    try:
        found = datetime.fromisoformat(_FRACTION.sub(r"\1", text.strip()))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
