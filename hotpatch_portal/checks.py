"""The doctor: `manage.py check` names what is wrong with an installation, and what to do about it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, OperationalError, connections

from connectors.protocol import CALL_SECONDS
from connectors.registry import KINDS
from hotpatch_portal.environment import is_guessable
from hotpatch_portal.schema import sentence, unknown_migrations
from patching.probes import read_networks
from patching.recurrence import parse_hours

OLDEST_POSTGRESQL = 14
LEAST_SEND_SECONDS = 1.0  # a kind that has less time for sending would hardly send anything
BROKER_SCHEMES = {"redis", "rediss", "redis+socket", "unix"}


@register(Tags.security)
def secret_key(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E001: sessions and links are signed with the key."""
    if settings.SECRET_KEY != "unset":  # noqa: S105 (the word for "not set")
        return []
    return [
        Error(
            "SECRET_KEY is not set.",
            hint="Set SECRET_KEY (or SECRET_KEY_FILE) to 50 random characters; `make up` generates one by itself.",
            id="portal.E001",
        )
    ]


@register(Tags.security)
def guessable_key(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E009: who guesses the key signs in as anybody."""
    if settings.SECRET_KEY == "unset" or not is_guessable(settings.SECRET_KEY):  # noqa: S105 (the word for "not set")
        return []
    return [
        Error(
            f"SECRET_KEY is too short or too simple ({len(settings.SECRET_KEY)} characters).",
            hint="Set SECRET_KEY (or SECRET_KEY_FILE) to 50 random characters; everybody is signed out by the change.",
            id="portal.E009",
        )
    ]


@register()
def broker(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E002: wake-ups go through Redis."""
    scheme = urlsplit(settings.REDIS_URL).scheme
    if scheme in BROKER_SCHEMES:
        return []
    return [
        Error(
            f"REDIS_URL starts with {scheme or 'nothing'}://, which is no address of a Redis.",
            hint="Write redis://host:6379/0, rediss:// for TLS, or redis+socket:///path/to/redis.sock.",
            id="portal.E002",
        )
    ]


@register()
def database_engine(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E003: constraints, SKIP LOCKED and full text are part of the design."""
    engine = settings.DATABASES["default"].get("ENGINE", "")
    if engine == "django.db.backends.postgresql":
        return []
    return [
        Error(
            f"DATABASE_URL leads to {engine or 'nothing'}; the portal needs PostgreSQL.",
            hint="Write postgres://user:password@host/database.",
            id="portal.E003",
        )
    ]


@register(Tags.database)
def database_version(databases: Sequence[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """portal.E004 and portal.E005: the database answers, and is PostgreSQL 14 or newer."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
                (version,) = cursor.fetchone() or (0,)
        except OperationalError as error:
            found.append(
                Error(
                    f"The database does not answer: {str(error).strip().splitlines()[0]}",
                    hint="Check host, port, user and password in DATABASE_URL, and that PostgreSQL runs.",
                    id="portal.E004",
                )
            )
            continue
        if version < OLDEST_POSTGRESQL:
            found.append(
                Error(
                    f"The database is PostgreSQL {version}; the portal needs {OLDEST_POSTGRESQL} or newer.",
                    hint="Upgrade PostgreSQL, or unset DATABASE_URL to use the embedded one.",
                    id="portal.E005",
                )
            )
    return found


@register(Tags.database)
def database_is_newer(databases: Sequence[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """portal.E010: older code would read and write rows that it does not understand."""
    found: list[CheckMessage] = []
    for alias in databases or ():
        with suppress(DatabaseError):  # that it does not answer is portal.E004
            unknown = unknown_migrations(alias)
            if unknown:
                found.append(Error(sentence(unknown), hint="Nothing was changed.", id="portal.E010"))
    return found


@register(Tags.security)
def debug(**_kwargs: Any) -> list[CheckMessage]:
    """portal.W001: DEBUG shows settings to whoever meets an error."""
    if not settings.DEBUG:
        return []
    return [
        Warning(
            "DEBUG is on: errors show source code and settings to everybody.",
            hint="Unset DEBUG outside of development.",
            id="portal.W001",
        )
    ]


@register(Tags.security)
def plain_http(**_kwargs: Any) -> list[CheckMessage]:
    """portal.W002: answering under names beyond loopback without TLS sends passwords in clear."""
    others = [host for host in settings.ALLOWED_HOSTS if not _is_loopback(host)]
    if settings.HTTPS or not others:
        return []
    return [
        Warning(
            f"The portal answers as {others[0]} over plain HTTP: passwords and cookies can be read on the way.",
            hint="Put a TLS proxy in front of it and set HTTPS=1.",
            id="portal.W002",
        )
    ]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@register()
def lease(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E006: a step must end before its lease does, or two workers would make it."""
    if settings.OPERATION_LEASE_SECONDS > settings.CELERY_TASK_TIME_LIMIT:
        return []
    return [
        Error(
            "OPERATION_LEASE_SECONDS is not longer than CELERY_TASK_TIME_LIMIT: two workers could make the same step.",
            hint="Keep the lease longer than the time limit of a task (90 and 60 seconds by default).",
            id="portal.E006",
        )
    ]


@register()
def times(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E011: a sweep, the time for sending and one last call end before a task is stopped in the middle of a start."""
    sweep, send, soft = (
        settings.OPERATION_SWEEP_SECONDS,
        settings.OPERATION_SEND_SECONDS,
        settings.CELERY_TASK_SOFT_TIME_LIMIT,
    )
    found: list[CheckMessage] = []
    for kind in KINDS.values():
        call = kind.traits.call_seconds
        if call > CALL_SECONDS and soft - sweep - call < LEAST_SEND_SECONDS:
            found.append(
                Error(
                    f"The kind {kind.name} declares calls of up to {call:g} s: of CELERY_TASK_SOFT_TIME_LIMIT ({soft} s) less than"
                    f" {LEAST_SEND_SECONDS:g} s are left to send starts in.",
                    hint="Shorten OPERATION_SWEEP_SECONDS, or lengthen the limit, the hard limit and the lease.",
                    id="portal.E011",
                )
            )
    if sweep + send + CALL_SECONDS > soft:
        found.append(
            Error(
                f"CELERY_TASK_SOFT_TIME_LIMIT is {soft} s, shorter than OPERATION_SWEEP_SECONDS ({sweep} s)"
                f" + OPERATION_SEND_SECONDS ({send} s) + one call ({CALL_SECONDS:g} s) = {sweep + send + CALL_SECONDS:g} s.",
                hint="Shorten one of the three or lengthen the limit (30 + 15 + 5 and 50 seconds by default).",
                id="portal.E011",
            )
        )
    if soft >= settings.CELERY_TASK_TIME_LIMIT:
        found.append(
            Error(
                f"CELERY_TASK_SOFT_TIME_LIMIT ({soft} s) is not shorter than CELERY_TASK_TIME_LIMIT"
                f" ({settings.CELERY_TASK_TIME_LIMIT} s): a task would be killed before it could stop by itself.",
                hint="Keep the soft limit some seconds below the other (50 and 60 seconds by default).",
                id="portal.E011",
            )
        )
    return found


@register(Tags.security)
def probe_networks(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E007: what is no network allows nothing, and its machines would be skipped in every rollout."""
    _networks, malformed = read_networks(settings.PROBE_NETWORKS)
    if not malformed:
        return []
    return [
        Error(
            f"PROBE_NETWORKS has “{malformed[0]}”, which is no network.",
            hint="Write CIDRs without host bits, separated by commas: 10.0.0.0/8,fd00::/8.",
            id="portal.E007",
        )
    ]


@register()
def off_peak(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E008: hours that cannot be read, or too short for an installation, would stop automatic guest patching."""
    try:
        parse_hours(settings.OFF_PEAK)
    except ValueError:
        return [
            Error(
                f"OFF_PEAK is “{settings.OFF_PEAK}”, which is no two hours of a day.",
                hint="Write when they begin and end, at least two hours apart: 22:00-04:00.",
                id="portal.E008",
            )
        ]
    return []


@register(Tags.security)
def open_metrics(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E011: a port for metrics that others reach needs the token."""
    if not settings.METRICS_PORT or settings.METRICS_TOKEN or _is_loopback(settings.METRICS_HOST):
        return []
    return [
        Error(
            f"METRICS_HOST={settings.METRICS_HOST} shows the metrics to whoever reaches it.",
            hint="Set METRICS_TOKEN (or METRICS_TOKEN_FILE), or leave METRICS_HOST at 127.0.0.1.",
            id="portal.E011",
        )
    ]


@register()
def mail_sender(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E012: mail servers refuse mail that comes from nowhere."""
    if not settings.EMAIL_HOST or settings.EMAIL_FROM:
        return []
    return [
        Error(
            f"EMAIL_HOST={settings.EMAIL_HOST} is to send mail, and EMAIL_FROM does not say from whom.",
            hint="Set EMAIL_FROM to an address that this server may send for: Hotpatch Portal <portal@example.org>.",
            id="portal.E012",
        )
    ]


@register(Tags.security)
def mail_password(**_kwargs: Any) -> list[CheckMessage]:
    """portal.E013: half of a sign-in, or one in clear."""
    found: list[CheckMessage] = []
    if not settings.EMAIL_HOST:
        return found
    if bool(settings.EMAIL_HOST_USER) != bool(settings.EMAIL_HOST_PASSWORD):
        found.append(
            Error(
                "Of EMAIL_HOST_USER and EMAIL_HOST_PASSWORD one is set and the other is not.",
                hint="Set both (EMAIL_HOST_PASSWORD_FILE names a file), or neither for a server that asks for no sign-in.",
                id="portal.E013",
            )
        )
    if settings.EMAIL_HOST_USER and settings.EMAIL_SECURITY == "none" and not _is_loopback(settings.EMAIL_HOST):
        found.append(
            Error(
                f"EMAIL_SECURITY=none sends the password to {settings.EMAIL_HOST} in clear.",
                hint="Write EMAIL_SECURITY=starttls (port 587) or tls (port 465).",
                id="portal.E013",
            )
        )
    return found


@register()
def mail_links(**_kwargs: Any) -> list[CheckMessage]:
    """portal.W003: a mail without a link says what to do only in words."""
    if not settings.EMAIL_HOST or settings.PORTAL_URL:
        return []
    return [
        Warning(
            "PORTAL_URL is not set: mails have no links.",
            hint="Set PORTAL_URL to the address that people type: https://portal.example.org.",
            id="portal.W003",
        )
    ]
