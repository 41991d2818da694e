"""Mail: its readers and contents; none is lost, and a repeated one has the same Message-ID, whatever server and workers do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.context import acting
from audit.services import Act, record
from audit.tags import Door, Tag
from notifications.models import Kind, Mail, Status, Why
from notifications.services import BATCH, DELAYS, LEASE, collect_mails, message_id, prune_mails, send_due
from people.models import MailWishes, Preferences
from tests.factories import GroupFactory, UserFactory, VirtualMachineFactory
from tests.forms import text_of
from tests.notifications.smtp import MailServer, Mood
from tests.notifications.world import collect, failed_bulk, later, pause, paused, settle
from tests.plans import no_joins_by_sets
from updates.models import WordsClock
from updates.services.bulk_ends import mark_seen
from updates.services.rollouts import resume_rollout
from vms.choices import Role
from vms.models import ResourceGroup, RoleAssignment, VirtualMachine
from vms.services.roles import assign_role

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
Want = Callable[..., User]


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(name="web-001", resource_group=resource_group)


def states() -> dict[str, int]:
    return dict(Counter(Mail.objects.values_list("status", flat=True)))


def body(mail: Any) -> str:
    return re.sub(r"\s+", " ", mail.get_content())


# --- who is told what ------------------------------------------------------------------------------------------------


def test_nobody_who_did_not_ask_is_told(server: MailServer, chief: User, operator: User, vm: VirtualMachine) -> None:
    paused(operator, [vm])
    failed_bulk(operator, vm)
    assert collect() == 0
    assert later() == 0


def test_a_paused_rollout_is_told_to_who_may_resume_it(
    server: MailServer, wanting: Want, chief: User, operator: User, owner: User, reader: User, vm: VirtualMachine
) -> None:
    for user in (chief, operator, owner, reader):
        wanting(user)
    rollout = paused(operator, [vm])
    assert collect() == 2
    assert later() == 2
    assert sorted(mail["To"] for mail in server.taken) == ["chief@example.org", "operator@example.org"]
    mail = server.taken[0]
    assert mail["Subject"] == "Rollout paused: November"
    assert mail["From"] == "Hotpatch Portal <portal@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    text = body(mail)
    assert "Too many machines failed or are unhealthy." in text
    assert "- web-001" in text
    assert f"https://portal.example.org{rollout.get_absolute_url()}" in text
    assert states() == {Status.SENT: 2}
    assert later(minutes=1) == collect() == 0  # once


def test_each_pause_is_told_and_who_pauses_himself_knows(
    server: MailServer, wanting: Want, chief: User, operator: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    wanting(operator)
    rollout = paused(operator, [vm])
    collect()
    assert later() == 2
    resume_rollout(rollout_id=rollout.pk, now=timezone.now(), resumed_by=operator)
    rollout.refresh_from_db()
    with acting(door=Door.PAGE, person=operator):
        pause(rollout)
    collect()
    assert later() == 1
    assert server.taken[-1]["To"] == "chief@example.org"
    assert len(set(server.ids)) == 3


def test_a_failed_bulk_request_is_told_to_who_made_it(
    server: MailServer, wanting: Want, chief: User, operator: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    wanting(operator)
    request = failed_bulk(operator, vm)
    assert (request.failed_count, request.finished_at is not None) == (1, True)
    assert collect() == 1
    assert later() == 1
    (mail,) = server.taken
    assert (mail["To"], mail["Subject"]) == (
        "operator@example.org",
        "Ended with failures: Installation on many machines",
    )
    assert "1 of 1 machines failed." in body(mail)
    assert "- web-001" in body(mail)


def test_a_decision_is_told_to_who_may_take_it(server: MailServer, wanting: Want, chief: User, operator: User) -> None:
    everywhere = UserFactory(username="everywhere")
    assign_role(role=Role.OPERATOR, users=[everywhere])
    for user in (chief, operator, everywhere):
        wanting(user)
    question = ["ws2022", "5999999", "An update that nobody knows", "2026-05-19", "unknown_os_update", 5, []]
    WordsClock.objects.create(pk=1, news={"ages": [], "waiting": [question]})
    record(acts=[Act(Tag.GUARD_WAIT, "ws2022:5999999", "KB5999999", is_public=True)])
    assert collect() == 2
    assert later() == 2
    assert sorted(mail["To"] for mail in server.taken) == ["chief@example.org", "everywhere@example.org"]
    assert server.taken[0]["Subject"] == "KB5999999 waits for a decision"
    assert "5 machines wait." in body(server.taken[0])


def test_it_speaks_the_language_and_the_clock_of_the_reader(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    Preferences.objects.create(user=chief, language="ja", time_zone="Asia/Tokyo")
    rollout = paused(None, [vm], name="十一月\n<script>")
    collect()
    assert later() == 1
    (mail,) = server.taken
    assert "十一月 <script>" in mail["Subject"]
    assert "(Asia/Tokyo)" in body(mail)
    assert f"{timezone.localtime(rollout.created_at, ZoneInfo('Asia/Tokyo')):%H:%M}" in body(mail)


@pytest.mark.parametrize(
    ("name", "subject"), [("a\r\nBcc: all@example.org", "Rollout paused: a Bcc: all@example.org"), ("x" * 150, None)]
)
def test_a_name_cannot_add_a_header(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine, name: str, subject: str | None
) -> None:
    wanting(chief)
    paused(None, [vm], name=name)
    collect()
    assert later() == 1
    (mail,) = server.taken
    assert mail["Bcc"] is None
    assert mail["Subject"] == (subject or f"Rollout paused: {name}")


def test_without_an_address_of_the_portal_it_tells_the_way_in_words(
    server: MailServer, settings: Any, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    settings.PORTAL_URL = ""
    wanting(chief)
    paused(None, [vm])
    collect()
    assert later() == 1
    assert "http" not in body(server.taken[0])
    assert "the bell in its top bar" in body(server.taken[0])


# --- what he may see, when it is sent --------------------------------------------------------------------------------


def test_nobody_is_told_of_a_machine_that_he_may_not_see(
    server: MailServer, wanting: Want, chief: User, resource_group: ResourceGroup
) -> None:
    """Roles of every scope, by oneself and by a group: the names in a mail are those of the list."""
    mine = VirtualMachineFactory.create_batch(3, resource_group=resource_group)
    others = VirtualMachineFactory.create_batch(4)
    group = GroupFactory()
    people = {name: UserFactory(username=name) for name in ("group", "subscription", "vm", "through", "two")}
    people["through"].groups.add(group)
    assign_role(role=Role.OPERATOR, on=resource_group, users=[people["group"]], groups=[group])
    assign_role(role=Role.OPERATOR, on=others[0].resource_group.subscription, users=[people["subscription"]])
    assign_role(role=Role.OPERATOR, on=others[1], users=[people["vm"], people["two"]])
    assign_role(role=Role.READER, on=resource_group, users=[people["two"]])
    for user in (chief, *people.values()):
        wanting(user, decisions=False)
        paused(user, [*mine, *others])
        failed_bulk(user, *mine, *others)
    collect()
    while later():
        pass
    assert len(server.taken) == 6 + 5 + 6  # the chief is told of each rollout
    names = {vm.name for vm in (*mine, *others)}
    for mail in server.taken:
        user = User.objects.get(username=mail["To"].partition("@")[0])
        seen = set(VirtualMachine.objects.visible_to(user).values_list("name", flat=True))
        told = {line[2:] for line in mail.get_content().splitlines() if line.startswith("- ")}
        assert told == names & seen, user
        assert told
        assert not [name for name in names - seen if name in mail.get_content()], user


def test_a_role_that_is_gone_when_it_is_sent_tells_nothing(
    server: MailServer, wanting: Want, operator: User, vm: VirtualMachine
) -> None:
    wanting(operator)
    other = VirtualMachineFactory(name="secret-001")
    assign_role(role=Role.READER, on=other, users=[operator])
    paused(operator, [vm, other])
    failed_bulk(operator, vm, other)
    collect()
    RoleAssignment.objects.filter(vm=other).delete()
    assert later() == 2
    assert all("secret-001" not in body(mail) for mail in server.taken)
    paused(operator, [vm])
    failed_bulk(operator, vm)
    collect()
    RoleAssignment.objects.filter(user=operator).delete()
    assert later() == 0
    assert set(Mail.objects.filter(status=Status.DROPPED).values_list("reason", flat=True)) == {Why.NOT_ALLOWED}
    assert len(server.taken) == 2


def test_a_reader_of_the_machines_cannot_resume_and_is_not_told(
    server: MailServer, wanting: Want, reader: User, vm: VirtualMachine
) -> None:
    wanting(reader)
    paused(reader, [vm])
    collect()
    assert later() == 0
    assert Mail.objects.get().reason == Why.NOT_ALLOWED


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("answered", Why.ANSWERED),
        ("removed", Why.ANSWERED),
        ("unwanted", Why.NOT_WANTED),
        ("no address", Why.NOT_WANTED),
        ("not active", Why.NOT_ALLOWED),
    ],
)
def test_what_changed_before_it_was_sent_is_heeded(
    server: MailServer, wanting: Want, operator: User, vm: VirtualMachine, change: str, why: Why
) -> None:
    wanting(operator)
    rollout, request = paused(operator, [vm]), failed_bulk(operator, vm)
    assert collect() == 2
    if change == "answered":
        resume_rollout(rollout_id=rollout.pk, now=timezone.now(), resumed_by=operator)
        assert mark_seen(request_id=request.pk, by=operator, now=timezone.now())
    elif change == "removed":
        rollout.delete()
        request.delete()
    elif change == "unwanted":
        MailWishes.objects.update(rollouts=False, bulk_requests=False)
    elif change == "no address":
        MailWishes.objects.update(address="")
    else:
        User.objects.filter(pk=operator.pk).update(is_active=False)
    assert later() == 0
    assert set(Mail.objects.values_list("status", "reason")) == {(Status.DROPPED, why)}


def test_a_batch_costs_the_same_queries_for_two_and_for_twenty(
    server: MailServer, wanting: Want, operator: User, chief: User, vm: VirtualMachine
) -> None:
    wanting(operator)
    assign_role(role=Role.OPERATOR, on=vm.resource_group.subscription, users=[operator])
    costs = []
    for count in (2, 18):
        for _ in range(count):
            paused(operator, [vm])
        collect()
        server.mood = Mood.SILENT  # so that no mail is kept by itself
        with CaptureQueriesContext(connection) as queries:
            later()
        costs.append(len(queries))
        Mail.objects.all().delete()
    assert costs[0] == costs[1] <= 12


# --- nothing is lost ----------------------------------------------------------------------------------------------------


def test_a_server_that_fails_hangs_and_comes_back_gets_every_mail_once(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    for number in range(3):
        paused(None, [vm], name=f"r{number}")
    assert collect() == 3
    first = dict(Mail.objects.values_list("pk", "message_id"))
    for attempt, mood in enumerate((Mood.BUSY, Mood.SILENT, Mood.BUSY), start=1):
        server.mood = mood
        began = time.monotonic()
        assert later(minutes=60) == 0
        assert time.monotonic() - began < 8
        assert server.taken == []
        rows = Mail.objects.values_list("attempts", "status")
        assert set(rows) == {(attempt, Status.WAITING)}
        assert Mail.objects.filter(error="").count() == 0
        assert later() == 0  # nothing is due before its time
    server.mood = Mood.TAKES
    assert later(minutes=60) == 3
    assert sorted(server.ids) == sorted(first.values())
    assert states() == {Status.SENT: 3}


def test_the_time_between_attempts_grows(server: MailServer, wanting: Want, chief: User, vm: VirtualMachine) -> None:
    wanting(chief)
    paused(None, [vm])
    collect()
    server.mood = Mood.BUSY
    for delay in DELAYS:
        later(minutes=1)
        left = Mail.objects.get().due_at - timezone.now()  # type: ignore[operator]
        assert delay - timedelta(seconds=30) < left <= delay
    later(minutes=1)
    mail = Mail.objects.get()
    assert (mail.status, mail.reason, mail.attempts) == (Status.GIVEN_UP, Why.NO_SERVER, len(DELAYS) + 1)
    assert "451" in mail.error
    assert mail.ended_at is not None
    assert later(minutes=1) == 0


def test_a_server_that_is_not_there_costs_one_attempt_a_batch(
    server: MailServer, settings: Any, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    for _ in range(3):
        paused(None, [vm])
    collect()
    settings.EMAIL_PORT = 1
    assert later() == 0
    assert set(Mail.objects.values_list("attempts", "status")) == {(1, Status.WAITING)}
    assert "ConnectionRefusedError" in Mail.objects.first().error  # type: ignore[union-attr]


def test_a_server_that_hangs_holds_workers_up_once_a_minute(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    for _ in range(BATCH + 5):
        paused(None, [vm])
    collect()
    no_joins_by_sets()
    server.mood = Mood.SILENT
    assert later() == 0
    assert later() == 0  # nothing is due for a minute, tried or not
    assert server.sessions == 1
    assert Counter(Mail.objects.values_list("attempts", flat=True)) == {1: BATCH, 0: 5}


def test_a_mail_that_cannot_be_written_down_ends_and_holds_up_no_other(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    other = UserFactory(username="other", is_superuser=True)
    wanting(other, address="no\nbody@example.org")  # no form lets it in
    paused(None, [vm])
    collect()
    later()
    later()
    assert server.taken[0]["To"] == "chief@example.org"
    assert Mail.objects.get(person=other).reason == Why.REFUSED


def test_an_address_that_is_refused_for_good_ends_with_the_reason(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    paused(None, [vm])
    collect()
    server.mood = Mood.REFUSES
    assert later() == 0
    mail = Mail.objects.get()
    assert (mail.status, mail.reason, mail.attempts) == (Status.GIVEN_UP, Why.REFUSED, 1)
    assert "no such mailbox" in mail.error


def test_an_answer_that_gets_lost_repeats_the_same_message_id(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    wanting(chief)
    paused(None, [vm], name="one")
    paused(None, [vm], name="two")
    collect()
    server.mood = Mood.TAKES_SILENTLY
    assert later() == 0
    server.may_go.set()
    assert len(server.taken) == 1  # the other one was not tried
    assert sorted(Mail.objects.values_list("attempts", flat=True)) == [0, 1]
    server.mood = Mood.HANGS_UP
    assert later(minutes=1) == 0
    server.mood = Mood.TAKES
    while later(minutes=1):
        pass
    assert len(server.taken) == 3
    assert set(server.ids) == set(Mail.objects.values_list("message_id", flat=True))
    assert states() == {Status.SENT: 2}


def test_a_mail_belongs_to_one_worker_for_a_lease(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    from notifications.services import _claim

    wanting(chief)
    paused(None, [vm])
    collect()
    now = timezone.now()
    assert len(_claim(now)) == 1
    assert _claim(now) == []
    assert send_due(now=now + LEASE - timedelta(seconds=1)) == 0
    assert send_due(now=now + LEASE) == 1


def test_events_are_told_once_whoever_collects_and_dies(
    server: MailServer, wanting: Want, chief: User, vm: VirtualMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanting(chief)
    paused(None, [vm])
    settle()

    def die(**_arguments: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("notifications.services.mark_delivered", die)
        with pytest.raises(RuntimeError), transaction.atomic():
            collect_mails(now=timezone.now())
    assert Mail.objects.count() == 0
    assert collect_mails(now=timezone.now()) == 1
    assert collect_mails(now=timezone.now()) == 0


# A worker as Celery runs it: what is due, again and again.
WORKER = """
import django
django.setup()
import time
from django.utils import timezone
from notifications.services import send_due
print("up", flush=True)
while True:
    send_due(now=timezone.now())
    time.sleep(0.05)
"""


def worker(server: MailServer) -> subprocess.Popen[bytes]:
    """A worker process on the database of the test."""
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    environment = os.environ | {
        "DATABASE_URL": address,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(server.port),
        "EMAIL_SECURITY": "none",
        "EMAIL_FROM": "Hotpatch Portal <portal@example.org>",
        "EMAIL_TIMEOUT": "2",
    }
    return subprocess.Popen([sys.executable, "-c", WORKER], cwd=ROOT, env=environment, stdout=subprocess.PIPE)


@pytest.mark.stack
@pytest.mark.django_db(transaction=True)
def test_workers_that_are_killed_lose_no_mail(server: MailServer, wanting: Want, vm: VirtualMachine) -> None:
    """kill -9 while the server has the mail and has not said so, and while it greets nobody; two workers beside each other."""
    chief = UserFactory(username="chief")
    assign_role(role=Role.OWNER, users=[chief])
    wanting(chief)
    for number in range(25):
        paused(None, [vm], name=f"r{number}")
    assert collect() == 25
    expected = set(Mail.objects.values_list("message_id", flat=True))
    for mood in (Mood.TAKES_SILENTLY, Mood.SILENT, Mood.TAKES_SILENTLY, Mood.HANGS_UP):
        server.mood = mood
        server.has_come.clear()
        Mail.objects.filter(status=Status.WAITING).update(due_at=timezone.now())  # as when the leases are over
        killed = worker(server)
        try:
            assert server.has_come.wait(30)
        finally:
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
            assert killed.stdout is not None
            killed.stdout.close()
    assert states() == {Status.WAITING: 25}
    server.mood = Mood.TAKES
    Mail.objects.update(due_at=timezone.now())
    workers = [worker(server), worker(server)]
    try:
        ends_at = time.monotonic() + 40
        while states() != {Status.SENT: 25} and time.monotonic() < ends_at:
            time.sleep(0.2)
    finally:
        for process in workers:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    assert states() == {Status.SENT: 25}
    assert set(server.ids) == expected  # none is lost, and none has another Message-ID
    assert len(server.ids) <= 25 + 2  # sent again only what a killed worker had in its hands


# --- when there is no server; what is kept -------------------------------------------------------------------------------


def test_without_a_mail_server_events_pass_by(
    server: MailServer, settings: Any, wanting: Want, chief: User, vm: VirtualMachine
) -> None:
    settings.EMAIL_HOST = ""
    wanting(chief)
    paused(None, [vm])
    assert collect() == 0
    settings.EMAIL_HOST = "127.0.0.1"
    assert collect() == 0  # what happened before is not told afterwards
    paused(None, [vm])
    assert collect() == 1
    settings.EMAIL_HOST = ""
    assert later() == 0
    assert Mail.objects.get().attempts == 0


def test_a_new_reader_of_the_outbox_is_not_told_the_past(wanting: Want, chief: User, vm: VirtualMachine) -> None:
    wanting(chief)
    paused(None, [vm])
    assert collect() == 0


def test_the_message_id_is_that_of_the_event_and_the_person(settings: Any) -> None:
    settings.DEFAULT_FROM_EMAIL = "Portal <portal@example.org>"
    assert message_id(event_id=1, person_id=2) == message_id(event_id=1, person_id=2)
    assert len({message_id(event_id=a, person_id=b) for a in range(3) for b in range(3)}) == 9
    assert message_id(event_id=1, person_id=2).endswith("@example.org>")


def test_the_database_tells_an_event_to_a_person_once(chief: User) -> None:
    now = timezone.now()
    row = {"event_id": 1, "person": chief, "kind": Kind.BULK_FAILED, "due_at": now, "created_at": now}
    Mail.objects.create(message_id="<a@x>", **row)
    with pytest.raises(IntegrityError), transaction.atomic():
        Mail.objects.create(message_id="<b@x>", **row)
    with pytest.raises(IntegrityError), transaction.atomic():
        Mail.objects.filter(event_id=1).update(status=Status.SENT)  # ended, and due


def test_old_mails_are_forgotten_once_they_have_ended(chief: User) -> None:
    now = timezone.now()
    old = {"person": chief, "kind": Kind.BULK_FAILED, "created_at": now - timedelta(days=100)}
    Mail.objects.create(event_id=1, message_id="<a@x>", due_at=now, **old)
    Mail.objects.create(event_id=2, message_id="<b@x>", status=Status.SENT, ended_at=now, **old)
    assert prune_mails(before=now - timedelta(days=90)) == 1
    assert Mail.objects.get().event_id == 1


# --- the wishes -----------------------------------------------------------------------------------------------------------


def test_wishes_are_off_until_somebody_asks(client: Client, reader: User, settings: Any) -> None:
    client.force_login(reader)
    page = client.get("/accounts/")
    assert "This portal sends no mail" in text_of(page)
    assert "checked" not in page.content.decode().partition('id="mail-title"')[2].partition("</form>")[0]
    form = {"address": "reader@example.org", "rollouts": "on"}
    assert "Your wishes for mail were saved." in text_of(client.post("/accounts/mail/", form, follow=True))
    wishes = MailWishes.objects.get(user=reader)
    assert (wishes.address, wishes.rollouts, wishes.decisions, wishes.bulk_requests) == (
        "reader@example.org", True, False, False,
    )  # fmt: skip
    settings.EMAIL_HOST = "mail.example.org"
    assert "This portal sends no mail" not in text_of(client.get("/accounts/"))


@pytest.mark.parametrize(
    ("form", "words"),
    [({"rollouts": "on"}, "Say where the mail goes."), ({"address": "nobody"}, "Enter a valid email address.")],
)
def test_a_wish_without_a_good_address_is_not_kept(
    client: Client, reader: User, form: dict[str, str], words: str
) -> None:
    client.force_login(reader)
    answer = client.post("/accounts/mail/", form)
    assert answer.status_code == 422
    assert words in text_of(answer)
    assert not MailWishes.objects.exists()
