"""Settings from the environment: a value that cannot be used ends the process with one sentence, and no traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

import environ
from environ.fileaware_mapping import FileAwareMapping

from patching.probes import read_networks
from patching.recurrence import parse_hours

DATABASE_SCHEMES = frozenset({"postgres", "postgresql"})
REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "unix"})
_HOST = re.compile(r"\*|\.?[A-Za-z0-9_]([A-Za-z0-9_-]*\.?)*|\[[0-9A-Fa-f:.]+\]")

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 lets a bearer token have
LEAST_TOKEN = 32


class SettingError(SystemExit):
    """A setting cannot be used. Its sentence names the setting, its value and what to do; secrets are not shown."""


class Environment:
    """Reads typed values. `NAME_FILE` names a file that holds the value of `NAME`."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._env = environ.FileAwareEnv()
        self._env.ENVIRON = FileAwareMapping(os.environ if variables is None else variables)

    def text(self, name: str, default: str) -> str:
        """The value as it stands."""
        try:
            return str(self._env.str(name, default=default))
        except (OSError, ValueError) as error:
            path = self._env.str(f"{name}_FILE", default="")
            raise SettingError(
                f"{name}_FILE={path} cannot be read ({getattr(error, 'strerror', None) or error}): "
                f"name a file that holds the value of {name}."
            ) from None

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number within these bounds."""
        text = self.text(name, str(default)).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
            raise SettingError(f"{name}={text} is no number from {least} to {most}: the default is {default}.")
        return int(text)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Yes or no."""
        text = self.text(name, "1" if default else "0").strip().lower()
        if text not in _FLAGS:
            raise SettingError(f"{name}={text} is neither 1 nor 0: write one of them.")
        return _FLAGS[text]

    def names(self, name: str, default: str = "") -> list[str]:
        """Words separated by commas."""
        return [word.strip() for word in self.text(name, default).split(",") if word.strip()]

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of these words."""
        text = self.text(name, default).strip()
        if text not in choices:
            raise SettingError(f"{name}={text} is not understood: write {' or '.join(choices)}.")
        return text

    def token(self, name: str) -> str:
        """A secret that travels in a header; empty: there is none. Its sentence does not show it."""
        text = self.text(name, "").strip()
        if text and not (_TOKEN.fullmatch(text) and len(text) >= LEAST_TOKEN):
            raise SettingError(
                f"{name} is no token ({len(text)} characters): give it {LEAST_TOKEN} or more random letters and digits."
            )
        return text

    def uuid(self, name: str) -> str:
        """A UUID in its usual form; empty: there is none."""
        text = self.text(name, "").strip()
        try:
            return str(UUID(text)) if text else ""
        except ValueError:
            raise SettingError(f"{name}={text} is no UUID: write 01234567-89ab-cdef-0123-456789abcdef.") from None

    def zone(self, name: str, default: str) -> str:
        """A time zone of the zone database."""
        text = self.text(name, default).strip()
        try:
            ZoneInfo(text)
        except (OSError, ValueError, KeyError):
            raise SettingError(f"{name}={text} is no time zone: write one like Europe/Berlin or Asia/Tokyo.") from None
        return text

    def hosts(self, name: str, default: str) -> list[str]:
        """Host names that the portal answers to."""
        found = self.names(name, default)
        for host in found:
            if not _HOST.fullmatch(host):
                raise SettingError(
                    f"{name} has “{host}”, which is no host name: write names without scheme, port and path, "
                    "separated by commas (portal.example,.example.org)."
                )
        return found

    def origins(self, name: str) -> list[str]:
        """Origins: scheme and host."""
        found = self.names(name)
        for origin in found:
            parts = _split(origin)
            if parts is None or parts[0] not in {"http", "https"} or not parts[1] or parts[2] not in {"", "/"}:
                raise SettingError(f"{name} has “{origin}”, which is no origin: write https://portal.example.")
        return [origin.rstrip("/") for origin in found]

    def url(self, name: str, default: str, schemes: frozenset[str]) -> str:
        """An address of one of these schemes."""
        text = self.text(name, default).strip()
        if text:
            check_url(name, text, schemes)
        return text

    def hours(self, name: str, default: str) -> str:
        """Two hours of a day, far enough apart for an installation."""
        text = self.text(name, default).strip()
        try:
            parse_hours(text)
        except ValueError:
            raise SettingError(
                f"{name}={text} is no two hours of a day: write when they begin and end, two hours apart or more "
                f"({default})."
            ) from None
        return text

    def networks(self, name: str) -> list[str]:
        """Networks as CIDRs."""
        found = self.names(name)
        malformed = read_networks(found)[1]
        if malformed:
            raise SettingError(
                f"{name} has “{malformed[0]}”, which is no network: write CIDRs without host bits, separated by commas "
                "(10.0.0.0/8,fd00::/8)."
            )
        return found

    def database(self, name: str, url: str) -> dict[str, Any]:
        """Django's configuration of this database."""
        try:
            return dict(self._env.db_url_config(url))
        except Exception:  # the library promises none of its own
            raise SettingError(f"{name} cannot be read: write postgres://user:password@host/database.") from None


_FLAGS = dict.fromkeys(("1", "true", "yes", "on", "y", "ok"), True) | dict.fromkeys(
    ("0", "false", "no", "off", "n", ""), False
)


def _split(url: str) -> tuple[str, str, str] | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts.scheme, parts.hostname or "", parts.path


def check_url(name: str, url: str, schemes: frozenset[str]) -> None:
    """Raise SettingError where the address has another scheme or cannot be read; it may hold a password and is not shown."""
    parts = _split(url)
    if parts is None or parts[0] not in schemes:
        scheme = f" (it starts with {parts[0]}://)" if parts and parts[0] else ""
        words = " or ".join(sorted(f"{word}://" for word in schemes))
        raise SettingError(f"{name} is not understood{scheme}: it must start with {words}.")


def is_guessable(key: str) -> bool:
    """Whether a SECRET_KEY is shorter than Django's own advice, or repeats a few characters."""
    return len(key) < 50 or len(set(key)) < 5
