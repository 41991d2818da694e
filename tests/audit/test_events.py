"""The record itself: nothing is changed or lost in it, it is signed, and it is handed over in order."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from audit.context import acting
from audit.models import AuditEvent, OutboxCursor
from audit.services import Act, mark_delivered, prune_events, record, undelivered
from audit.tags import Door, Tag
from tests.factories import ConnectionFactory
from vms.models import Connection

pytestmark = pytest.mark.django_db


def last(tag: Tag) -> AuditEvent:
    return AuditEvent.objects.filter(tag=tag.value).order_by("-pk")[0]


def test_every_tag_is_subject_object_action() -> None:
    assert all(len(tag.value.split(":")) == 3 and len(tag.value) <= 60 for tag in Tag)
    assert len(set(Tag.values)) == len(Tag)


@pytest.mark.parametrize(
    "change",
    [
        lambda: AuditEvent.objects.update(person="nobody"),
        lambda: AuditEvent.objects.all().delete(),
        lambda: connection.cursor().execute("DELETE FROM audit_auditevent"),
    ],
)
def test_an_event_is_never_changed_or_removed(change: Any) -> None:
    record(acts=[Act(Tag.BACKUP_WRITE)])
    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic():
        change()
    assert AuditEvent.objects.filter(tag=Tag.BACKUP_WRITE.value).count() == 1


def test_what_is_rolled_back_was_not_done(chief: User) -> None:
    with transaction.atomic():
        record(acts=[Act(Tag.BACKUP_WRITE)], by=chief)
        transaction.set_rollback(True)
    assert not AuditEvent.objects.filter(tag=Tag.BACKUP_WRITE.value).exists()


def test_acts_are_kept_in_one_statement_whatever_their_number(django_assert_num_queries: Any, chief: User) -> None:
    for many in (2, 200):
        with django_assert_num_queries(1):
            record(acts=[Act(Tag.OPERATION_CANCEL, object_id=str(n)) for n in range(many)], by=chief)


def test_an_event_is_bounded() -> None:
    long = "x" * 10_000
    record(
        acts=[Act(Tag.CONNECTION_TEST, object_name=long, detail={"error": long + "\0", "names": [long]})], reason=long
    )
    event = last(Tag.CONNECTION_TEST)
    assert len(event.object_name) == 200
    assert len(event.reason) == 500
    assert len(event.detail["error"]) <= 2_000
    assert len(event.detail["names"]) <= 2_000
    row = ConnectionFactory(name="c")
    Connection.objects.filter(pk=row.pk).update(name="y" * 100)
    assert last(Tag.CONNECTION_CHANGE).before == {"name": "c"}


@pytest.mark.parametrize(
    ("door", "with_person", "agent", "expected"),
    [
        (None, False, "", ("portal", "", "")),  # our own processes say what they are by their application_name
        (Door.PAGE, True, "", ("page", "chief", "")),
        (Door.ADMIN, True, "", ("admin", "chief", "")),
        (Door.COMMAND, False, "import_vms (root)", ("command", "", "import_vms (root)")),
        (Door.PORTAL, True, "", ("portal", "chief", "")),
    ],
)
def test_changes_of_a_row_are_signed_by_their_context(
    chief: User, door: Door | None, with_person: bool, agent: str, expected: tuple[str, str, str]
) -> None:
    row = ConnectionFactory()
    with acting(door=door, person=chief if with_person else None, agent=agent, reason=" because "):
        Connection.objects.filter(pk=row.pk).update(max_in_flight=7)
    event = last(Tag.CONNECTION_CHANGE)
    assert (event.door, event.person, event.agent) == expected
    assert event.reason == "because"
    assert event.person_id == (chief.pk if with_person else None)
    assert (event.before["max_in_flight"], event.after["max_in_flight"]) == (5_000, 7)


def test_what_follows_in_the_transaction_is_not_signed_by_a_context_that_has_ended(chief: User, owner: User) -> None:
    row = ConnectionFactory()
    with transaction.atomic():
        with acting(door=Door.PORTAL, person=chief):
            Connection.objects.filter(pk=row.pk).update(max_in_flight=7)
        Connection.objects.filter(pk=row.pk).update(max_in_flight=8)
    assert last(Tag.CONNECTION_CHANGE).person == ""
    with acting(door=Door.PAGE, person=owner):
        with acting(door=Door.PORTAL, person=chief):
            Connection.objects.filter(pk=row.pk).update(max_in_flight=9)
        Connection.objects.filter(pk=row.pk).update(max_in_flight=10)
    event = last(Tag.CONNECTION_CHANGE)
    assert (event.person, event.door) == ("owner", "page")


def test_a_statement_that_no_part_of_the_portal_made_is_kept_with_the_account_of_the_database() -> None:
    row = ConnectionFactory()
    with connection.cursor() as cursor:
        cursor.execute("SET application_name = 'psql'")
        cursor.execute("UPDATE vms_connection SET max_in_flight = 3 WHERE id = %s", [row.pk])
        cursor.execute("SELECT session_user")
        (account,) = cursor.fetchone()
        cursor.execute("SET application_name = 'hotpatch-portal'")
    event = last(Tag.CONNECTION_CHANGE)
    assert (event.door, event.agent, event.person) == ("database", account, "")


def test_a_change_of_nothing_is_no_event() -> None:
    row = ConnectionFactory(max_in_flight=5)
    before = AuditEvent.objects.count()
    Connection.objects.filter(pk=row.pk).update(max_in_flight=5)
    assert AuditEvent.objects.count() == before


# --- retention ---------------------------------------------------------------------------------------------------


def test_old_events_go_in_batches_and_that_is_kept() -> None:
    record(acts=[Act(Tag.OPERATION_CANCEL, object_id=str(n)) for n in range(25)])
    total = AuditEvent.objects.count()
    now = timezone.now()
    assert prune_events(before=now - timedelta(days=1)) == 0
    assert prune_events(before=now, batch=10) == total
    told = AuditEvent.objects.filter(tag=Tag.ACTIVITY_PRUNE.value)
    assert sum(event.detail["events"] for event in told) == total
    with pytest.raises(DatabaseError), transaction.atomic():  # the permission ended with the retention
        told.delete()


def test_what_was_not_handed_over_outlives_its_retention() -> None:
    record(acts=[Act(Tag.OPERATION_CANCEL, object_id=str(n)) for n in range(4)])
    ids = list(AuditEvent.objects.filter(tag=Tag.OPERATION_CANCEL.value).order_by("pk").values_list("pk", flat=True))
    mark_delivered(consumer="inbox", event_id=ids[1])
    prune_events(before=timezone.now() + timedelta(seconds=1))
    assert list(AuditEvent.objects.filter(pk__in=ids).order_by("pk").values_list("pk", flat=True)) == ids[2:]


# --- outbox ------------------------------------------------------------------------------------------------------


def test_the_position_never_goes_back() -> None:
    mark_delivered(consumer="inbox", event_id=7)
    mark_delivered(consumer="inbox", event_id=3)
    mark_delivered(consumer="other", event_id=2)
    assert dict(OutboxCursor.objects.values_list("pk", "delivered")) == {"inbox": 7, "other": 2}


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_commits_late_is_not_left_out() -> None:
    """Its event has the smaller id, and becomes visible after the one with the larger id."""
    has_written, may_commit = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                record(acts=[Act(Tag.BACKUP_WRITE, object_id="late")])
                has_written.set()
                may_commit.wait(30)
        finally:
            connection.close()

    def ids() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1.2)")  # the margin for a clock that jumps
        return [event.object_id for event in undelivered(consumer="inbox")]

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert has_written.wait(30)
        record(acts=[Act(Tag.BACKUP_WRITE, object_id="early")])
        assert ids() == []
    finally:
        may_commit.set()
        thread.join()
    assert ids() == ["late", "early"]
    mark_delivered(consumer="inbox", event_id=last(Tag.BACKUP_WRITE).pk)
    assert ids() == []
