"""Mails: made from the record's outbox, sent by whatever worker comes, each at least once and always with the same Message-ID.

What is due is in the table; a worker takes some rows for one lease, and SMTP is spoken outside of any transaction. A worker that is
killed leaves its rows to the next one. Where it was killed between the server's answer and ours, the mail is sent
again with its Message-ID, by which mail programs tell a repetition.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parseaddr
from smtplib import SMTPDataError, SMTPException, SMTPRecipientsRefused, SMTPResponseException, SMTPServerDisconnected
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import connection, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

from audit.services import mark_delivered, next_delivery, subscribe
from db.arrays import array
from notifications.models import Mail, Status, Why
from notifications.selectors import TOLD, Letter, judge, readers_of

log = structlog.get_logger(__name__)
CONSUMER = "mail"
BATCH = 20
MAX_DELIVERIES = 50  # of 5,000 events each, in one run
# Longer than a task may take, so that no two workers have a mail at once.
LEASE = timedelta(seconds=90)
# How long until the next attempt, after each that failed; after the last one a mail is given up: two days in all.
DELAYS = [timedelta(minutes=minutes) for minutes in (1, 2, 5, 15, 60, 240, 480, 720, 1_440)]


# --- from the outbox ---------------------------------------------------------------------------------------------------


def collect_mails(*, now: datetime) -> int:
    """Make a mail of each new event for each of its readers; how many. Without a mail server events pass by unread.

    Two workers may collect at once, and one may die half-way: an event is told to a person once.
    """
    subscribe(consumer=CONSUMER)
    made = 0
    for _delivery in range(MAX_DELIVERIES):
        delivery = next_delivery(consumer=CONSUMER, tags=TOLD)
        if delivery is None:
            break
        told = readers_of(delivery.events) if settings.EMAIL_HOST else []
        mails = [
            Mail(
                event_id=event.pk,
                person_id=person,
                kind=kind,
                object_id=event.object_id,
                message_id=message_id(event_id=event.pk, person_id=person),
                due_at=now,
                created_at=now,
            )
            for event, kind, person in told
        ]
        with transaction.atomic():
            Mail.objects.bulk_create(mails, batch_size=1_000, ignore_conflicts=True)
            mark_delivered(consumer=CONSUMER, event_id=delivery.upto)
        made += len(mails)
    return made


def message_id(*, event_id: int, person_id: int) -> str:
    """The Message-ID of an event for a person: always the same, and another one in every other portal."""
    name = f"{event_id}.{person_id}"
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"
    return f"<{name}.{salted_hmac('notifications.message-id', name).hexdigest()[:24]}@{domain}>"


def prune_mails(*, before: datetime) -> int:
    """Forget mails that ended and are older; how many."""
    return Mail.objects.filter(created_at__lt=before).exclude(status=Status.WAITING).delete()[0]


# --- to the server -----------------------------------------------------------------------------------------------------

# A CTE runs once. PostgreSQL may run a sub-select after IN once for each row: SKIP LOCKED then gives it other rows each
# time, and more rows than the LIMIT are claimed.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM notifications_mail WHERE status = %(waiting)s AND due_at <= %(now)s
    ORDER BY due_at, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
UPDATE notifications_mail mail SET due_at = %(leased)s FROM due WHERE mail.id = due.id
RETURNING mail.id
"""


def send_due(*, now: datetime, seconds: float = 10.0) -> int:
    """Send what is due, for a while; how many the server took. Without a mail server nothing is tried.

    Where the server does not answer, one batch has found out, and all that is due waits a minute.
    """
    if not settings.EMAIL_HOST:
        return 0
    ends_at, sent = time.monotonic() + seconds, 0
    while time.monotonic() < ends_at:
        mails = _claim(now)
        if not mails:
            break
        letters, dropped = judge(mails)
        _drop(dropped)
        done = _send(letters, ends_at)
        sent += done
        if done < len(letters):
            break
    return sent


def _claim(now: datetime) -> list[Mail]:
    parameters: dict[str, Any] = {"leased": now + LEASE, "now": now, "waiting": Status.WAITING.value, "batch": BATCH}
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        ids = [row[0] for row in cursor.fetchall()]
    return list(Mail.objects.filter(pk__in=ids).order_by("pk"))


def _drop(reasons: Mapping[int, Why]) -> None:
    for why in set(reasons.values()):  # a statement for each of these few reasons
        ids = [pk for pk, reason in reasons.items() if reason is why]
        _end(ids, Status.DROPPED, why)


def _end(ids: Collection[int], status: Status, why: Why | str = "", **fields: Any) -> None:
    rows = Mail.objects.filter(pk__in=ids, status=Status.WAITING)
    rows.update(status=status, reason=why, due_at=None, ended_at=timezone.now(), **fields)


def _send(letters: Sequence[Letter], ends_at: float) -> int:
    """Send these over one connection; how many the server took.

    What became of a mail is kept before the next one is sent: a worker that is killed leaves one in doubt, not all.
    """
    if not letters:
        return 0
    server = get_connection()
    try:
        server.open()
    except Exception as error:  # whatever a server does to us: the mails are tried again
        _postpone([letter.mail.pk for letter in letters], error)
        _hold_off()
        return 0
    sent = 0
    try:
        for number, letter in enumerate(letters):
            if time.monotonic() >= ends_at:
                _give_back(letters[number:])
                break
            failure = _handed_over(server, letter)
            if failure is None:
                _end([letter.mail.pk], Status.SENT, attempts=letter.mail.attempts + 1, error="")
                sent += 1
            elif _is_for_good(failure):
                fields: dict[str, Any] = {"attempts": letter.mail.attempts + 1, "error": _words(failure)}
                _end([letter.mail.pk], Status.GIVEN_UP, Why.REFUSED, **fields)
            else:
                _postpone([letter.mail.pk], failure)
                if not isinstance(failure, SMTPResponseException | SMTPRecipientsRefused):
                    _give_back(letters[number + 1 :])
                    _hold_off()
                    break
    finally:
        _close(server)
    log.info("mails_sent", sent=sent, of=len(letters))
    return sent


def _handed_over(server: Any, letter: Letter) -> Exception | None:
    headers = {"Message-ID": letter.mail.message_id, "Auto-Submitted": "auto-generated"}
    message = EmailMessage(letter.told.subject, letter.told.body, to=[letter.address], headers=headers)
    try:
        server.send_messages([message])
    except Exception as error:  # a time-out, a reset, an unreadable answer: `_words` says which
        return error
    return None


def _close(server: Any) -> None:
    try:
        server.close()
    except (OSError, SMTPException) as error:  # what was taken was taken
        log.info("mail_server_left_badly", error=_words(error))


def _is_for_good(error: Exception) -> bool:
    """Whether no server will ever take this mail: it cannot be written down, or the answer is 500 or more."""
    if isinstance(error, ValueError):
        return True
    if isinstance(error, SMTPRecipientsRefused):
        return all(code >= 500 for code, _text in error.recipients.values())
    return isinstance(error, SMTPDataError) and error.smtp_code >= 500


def _words(error: Exception) -> str:
    if isinstance(error, SMTPServerDisconnected) or not isinstance(error, SMTPResponseException):
        return f"{type(error).__name__}: {error}"[:300]
    text = error.smtp_error
    return f"{error.smtp_code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"[:300]


# Each row by its own number of attempts.
_POSTPONE = """
UPDATE notifications_mail SET
    attempts = attempts + 1, error = %(error)s,
    status = CASE WHEN attempts < %(most)s THEN status ELSE %(given_up)s END,
    reason = CASE WHEN attempts < %(most)s THEN reason ELSE %(no_server)s END,
    due_at = CASE WHEN attempts < %(most)s THEN %(now)s + make_interval(secs => (%(delays)s::int[])[attempts + 1]) END,
    ended_at = CASE WHEN attempts < %(most)s THEN NULL ELSE %(now)s END
WHERE id = ANY(%(ids)s::bigint[]) AND status = %(waiting)s
"""


def _postpone(ids: Collection[int], error: Exception) -> None:
    """An attempt that failed: these wait longer each time, until they are given up with the reason."""
    parameters: dict[str, Any] = {
        "ids": array(ids),
        "error": _words(error).replace("\0", ""),
        "most": len(DELAYS),
        "delays": [int(delay.total_seconds()) for delay in DELAYS],
        "now": timezone.now(),
        "waiting": Status.WAITING.value,
        "given_up": Status.GIVEN_UP.value,
        "no_server": Why.NO_SERVER.value,
    }
    with connection.cursor() as cursor:
        cursor.execute(_POSTPONE, parameters)
    log.warning("mails_postponed", mails=len(ids), error=parameters["error"])


def _give_back(letters: Iterable[Letter]) -> None:
    """These were not tried: they are due again."""
    ids = [letter.mail.pk for letter in letters]
    Mail.objects.filter(pk__in=ids, status=Status.WAITING).update(due_at=timezone.now())


def _hold_off() -> None:
    """The server does not answer: what is due waits a minute, untried, so that workers do not wait for it mail by mail."""
    now = timezone.now()
    Mail.objects.filter(status=Status.WAITING, due_at__lte=now).update(due_at=now + DELAYS[0])
