"""The doctor names what is wrong, with an id and a hint."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.checks import run_checks

from connectors.protocol import Traits
from connectors.registry import KINDS, SIMULATOR
from hotpatch_portal import checks


def ids(**databases: Any) -> set[str]:
    return {str(message.id) for message in run_checks(**databases) if str(message.id).startswith("portal.")}


@pytest.fixture(autouse=True)
def _served_on_loopback(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1"]


def test_a_sound_installation_has_nothing_to_say() -> None:
    assert ids() == set()


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("SECRET_KEY", "unset", "portal.E001"),
        ("SECRET_KEY", "x", "portal.E009"),
        ("SECRET_KEY", "x" * 80, "portal.E009"),
        ("REDIS_URL", "amqp://host", "portal.E002"),
        ("REDIS_URL", "", "portal.E002"),
        ("OPERATION_LEASE_SECONDS", 60, "portal.E006"),
        ("OPERATION_SWEEP_SECONDS", 31, "portal.E011"),
        ("OPERATION_SEND_SECONDS", 16, "portal.E011"),
        ("CELERY_TASK_SOFT_TIME_LIMIT", 49, "portal.E011"),
        ("CELERY_TASK_SOFT_TIME_LIMIT", 60, "portal.E011"),
        ("OFF_PEAK", "22:00-23:00", "portal.E008"),
        ("PROBE_NETWORKS", ["10.0.0.0/8", "10.0.0.4/8"], "portal.E007"),
        ("DEBUG", True, "portal.W001"),
        ("ALLOWED_HOSTS", ["portal.example"], "portal.W002"),
    ],
)
def test_each_fault_is_named(settings: Any, name: str, value: object, found: str) -> None:
    setattr(settings, name, value)
    assert ids() == {found}


def test_a_kind_whose_calls_leave_no_time_for_sending_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(KINDS[SIMULATOR], traits=Traits(call_seconds=19.5))
    monkeypatch.setitem(KINDS, SIMULATOR, slow)
    (message,) = checks.times()
    assert (message.id, "19.5 s" in message.msg) == ("portal.E011", True)
    monkeypatch.setitem(KINDS, SIMULATOR, replace(slow, traits=Traits(call_seconds=19)))
    assert checks.times() == []


def test_another_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3"}})
    monkeypatch.setattr(checks, "settings", other)
    (message,) = checks.database_engine()
    assert message.id == "portal.E003"


def test_every_finding_has_a_hint(settings: Any) -> None:
    settings.SECRET_KEY, settings.REDIS_URL, settings.DEBUG = "unset", "", True
    settings.ALLOWED_HOSTS, settings.OPERATION_LEASE_SECONDS = ["portal.example"], 1
    settings.PROBE_NETWORKS = ["everywhere"]
    own = [message for message in run_checks() if str(message.id).startswith("portal.")]
    assert len(own) == 6
    assert all(message.hint for message in own)


def test_loopback_by_any_name_needs_no_tls(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"]
    assert ids() == set()


@pytest.mark.django_db
def test_the_database_is_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(databases=["default"]) == set()
    monkeypatch.setattr(checks, "OLDEST_POSTGRESQL", 99)
    assert ids(databases=["default"]) == {"portal.E005"}


@pytest.mark.django_db
def test_a_database_of_a_newer_portal_is_named_and_refused() -> None:
    from django.core.management import call_command
    from django.core.management.base import SystemCheckError
    from django.db import connection
    from django.db.migrations.recorder import MigrationRecorder

    from hotpatch_portal.schema import refuse_newer_database

    refuse_newer_database()
    MigrationRecorder(connection).record_applied("updates", "9999_from_next_year")
    assert ids(databases=["default"]) == {"portal.E010"}
    with pytest.raises(SystemExit, match=r"newer version of the portal.*updates.9999_from_next_year"):
        refuse_newer_database()
    with pytest.raises(SystemCheckError, match=r"portal\.E010"):
        call_command("migrate", verbosity=0, skip_checks=False)


@pytest.mark.parametrize(
    ("user", "password", "security", "host", "is_wrong"),
    [
        ("portal", "secret", "starttls", "mail.example.org", False),
        ("", "", "none", "mail.example.org", False),
        ("portal", "secret", "none", "localhost", False),
        ("portal", "secret", "none", "mail.example.org", True),
        ("portal", "", "starttls", "mail.example.org", True),
        ("", "secret", "tls", "mail.example.org", True),
        ("portal", "", "starttls", "", False),
    ],
)
def test_a_password_for_mail_is_whole_and_not_sent_in_clear(
    settings: Any, user: str, password: str, security: str, host: str, is_wrong: bool
) -> None:
    settings.EMAIL_HOST, settings.EMAIL_SECURITY = host, security
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = user, password
    settings.EMAIL_FROM, settings.PORTAL_URL = "portal@example.org", "https://portal.example.org"
    assert ids() == ({"portal.E013"} if is_wrong else set())
    assert "secret" not in "".join(str(message) for message in run_checks())


def test_mail_has_a_sender_and_links(settings: Any) -> None:
    settings.EMAIL_HOST = "mail.example.org"
    assert ids() == {"portal.E012", "portal.W003"}
    settings.EMAIL_FROM, settings.PORTAL_URL = "portal@example.org", "https://portal.example.org"
    assert ids() == set()


def test_the_times_of_mail_fit_into_a_task(settings: Any) -> None:
    """A connection that answers just in time, and one mail after the time for sending is over."""
    from notifications.services import LEASE

    assert settings.CELERY_TASK_SOFT_TIME_LIMIT > 10 + 6 * 6
    assert LEASE.total_seconds() > settings.CELERY_TASK_TIME_LIMIT
