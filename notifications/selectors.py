"""Who gets a mail about an event, and what the mail may say at the moment when it is sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db.models import BigIntegerField, BooleanField, Func, IntegerField, QuerySet, Value

from audit.models import AuditEvent
from audit.tags import Door, Tag
from notifications.models import Kind, Mail, Why
from notifications.texts import MAX_NAMES, Reader, Told, failed_bulk_request, paused_rollout, waiting_decision
from patching.codes import ErrorCode
from patching.terms import OperationState
from people.models import MailWishes
from updates.models import BulkBlock, BulkOutcome, BulkRequest, MemberState, Rollout, RolloutMember, RolloutState
from updates.selectors.decisions import News, find_told
from updates.services.operations import RequestVerdict
from vms.choices import Role
from vms.models import Grants, VirtualMachine
from vms.selectors import grants_of_many, holders_of_everything

TOLD = {
    Tag.ROLLOUT_PAUSE: Kind.ROLLOUT_PAUSED,
    Tag.GUARD_WAIT: Kind.DECISION_WAITS,
    Tag.BULK_FINISH: Kind.BULK_FAILED,
}
_UNNESTED = Func("vm_ids", function="unnest", output_field=BigIntegerField())
WISHES = {Kind.ROLLOUT_PAUSED: "rollouts", Kind.DECISION_WAITS: "decisions", Kind.BULK_FAILED: "bulk_requests"}


# --- who is told -----------------------------------------------------------------------------------------------------


def readers_of(events: Collection[AuditEvent]) -> list[tuple[AuditEvent, Kind, int]]:
    """Each of these events with everybody who wants to be told and may be able to answer (ids), in three queries.

    Their rights are judged again when the mail is sent. The person who caused the event gets no mail about it.
    """
    if not events:
        return []
    wishes = [
        dict[str, Any](row) for row in MailWishes.objects.filter(user__is_active=True).exclude(address="").values()
    ]
    owners, deciders = (
        set(holders_of_everything(role).values_list("pk", flat=True)) for role in (Role.OWNER, Role.OPERATOR)
    )
    found = []
    for event in events:
        kind = TOLD[Tag(event.tag)]
        if kind is Kind.BULK_FAILED and not _has_failed(event):
            continue
        wanting = {row["user_id"] for row in wishes if row[WISHES[kind]]}
        able: dict[Kind, set[int | None]] = {
            Kind.ROLLOUT_PAUSED: {*owners, event.owner_key},
            Kind.DECISION_WAITS: {*deciders},
            Kind.BULK_FAILED: {event.owner_key},
        }
        doer = event.person_id if event.door != Door.PORTAL else None
        found += [(event, kind, person) for person in sorted(wanting & able[kind] - {doer})]
    return found


def _has_failed(event: AuditEvent) -> bool:
    return bool(event.detail.get("failed")) or event.detail.get("error") == ErrorCode.BULK_FAILED


# --- what he may be told -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail that is sent now: its reader, subject and text."""

    mail: Mail
    address: str
    told: Told


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a person holds on the machines of a rollout or a bulk request: whether the role, and names of those that failed."""

    holds_role: bool = False
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a batch of mails is judged by, read at once."""

    people: Mapping[int, User]
    grants: Mapping[int, Grants]
    rollouts: Mapping[UUID, Rollout]
    requests: Mapping[UUID, BulkRequest]
    news: News
    seen: Mapping[int, _Seen]


def judge(mails: Sequence[Mail]) -> tuple[list[Letter], dict[int, Why]]:
    """What of these mails goes out with which words, and why the others (by id) do not, in a fixed number of queries.

    The same rules as the page of what waits (`people.selectors.waiting`): an Owner of everything, or who asked for it and holds the
    role on one of its machines. Machines are named to who may see them now.
    """
    people = User.objects.filter(pk__in={mail.person_id for mail in mails}).select_related("preferences", "mail_wishes")
    rollouts = Rollout.objects.select_related("configuration").in_bulk(_ids(mails, Kind.ROLLOUT_PAUSED))
    requests = BulkRequest.objects.in_bulk(_ids(mails, Kind.BULK_FAILED))
    grants = grants_of_many(people, with_groups=True)
    facts = _Facts(
        people={user.pk: user for user in people},
        grants=grants,
        rollouts=rollouts,
        requests=requests,
        news=find_told(),
        seen=_seen(mails, grants),
    )
    letters, dropped = [], {}
    for mail in mails:
        told = _judged(mail, facts)
        if isinstance(told, Why):
            dropped[mail.pk] = told
        else:
            reader = _reader(facts.people[mail.person_id])
            letters.append(Letter(mail, reader.address, told(reader)))
    return letters, dropped


def _ids(mails: Iterable[Mail], kind: Kind) -> set[UUID]:
    return {UUID(mail.object_id) for mail in mails if mail.kind == kind}


def _judged(mail: Mail, facts: _Facts) -> Why | Callable[[Reader], Told]:
    person, kind = facts.people.get(mail.person_id), Kind(mail.kind)
    wishes = getattr(person, "mail_wishes", None)
    if person is None or not person.is_active:
        return Why.NOT_ALLOWED
    if wishes is None or not wishes.address or not getattr(wishes, WISHES[kind]):
        return Why.NOT_WANTED
    grants, seen = facts.grants[person.pk], facts.seen.get(mail.pk, _Seen())
    is_chief = grants.at_least(Role.OWNER).are_of_everything
    if kind is Kind.DECISION_WAITS:
        if not grants.at_least(Role.OPERATOR).are_of_everything:
            return Why.NOT_ALLOWED
        asked = [one for one in facts.news.waiting if f"{one.line.value}:{one.kb_number}" == mail.object_id]
        return partial(waiting_decision, asked[0]) if asked else Why.ANSWERED
    if kind is Kind.ROLLOUT_PAUSED:
        rollout = facts.rollouts.get(UUID(mail.object_id))
        if rollout is None or rollout.status != RolloutState.PAUSED:
            return Why.ANSWERED
        if not (is_chief or (rollout.created_by_id == person.pk and seen.holds_role)):
            return Why.NOT_ALLOWED
        return partial(paused_rollout, rollout, seen.failed)
    request = facts.requests.get(UUID(mail.object_id))
    if request is None or request.seen_at is not None:
        return Why.ANSWERED
    if request.requested_by_id != person.pk or not (is_chief or seen.holds_role):
        return Why.NOT_ALLOWED
    return partial(failed_bulk_request, request, seen.failed)


def _reader(person: User) -> Reader:
    stored = getattr(person, "preferences", None)
    language = stored.language if stored and stored.language else settings.LANGUAGE_CODE
    zone = stored.time_zone if stored and stored.time_zone else settings.TIME_ZONE
    return Reader(person.mail_wishes.address, language, zone)


def _seen(mails: Iterable[Mail], grants: Mapping[int, Grants]) -> dict[int, _Seen]:
    """What each mail's person holds on the machines that it is about (one query)."""
    parts = [part for mail in mails if mail.person_id in grants for part in _parts(mail, grants[mail.person_id])]
    holding: set[int] = set()
    failed: dict[int, list[str]] = defaultdict(list)
    rows: Iterable[Any] = parts[0].union(*parts[1:], all=True) if len(parts) > 1 else ()
    for mail_id, has_failed, name in rows:
        if has_failed:
            failed[mail_id].append(name)
        else:
            holding.add(mail_id)
    return {pk: _Seen(pk in holding, tuple(sorted(failed[pk]))) for pk in {*holding, *failed}}


def _parts(mail: Mail, grants: Grants) -> list[QuerySet[VirtualMachine, Any]]:
    """One machine on which the person holds the role, and the first that failed of those that he may see."""
    if mail.kind == Kind.ROLLOUT_PAUSED:
        role, members = Role.OPERATOR, RolloutMember.objects.filter(rollout_id=mail.object_id)
        machines = VirtualMachine.objects.filter(pk__in=members.order_by().values("vm"))
        failing = members.filter(status=MemberState.FAILED).order_by()
        broken = VirtualMachine.objects.filter(pk__in=failing.values("vm"))
    elif mail.kind == Kind.BULK_FAILED:
        role, blocks = Role.READER, BulkBlock.objects.filter(request_id=UUID(mail.object_id)).order_by()
        machines = VirtualMachine.objects.filter(pk__in=blocks.values(one=_UNNESTED))
        outcomes = BulkOutcome.objects.filter(request_id=UUID(mail.object_id)).order_by()
        failed = outcomes.filter(operation__state=OperationState.FAILED.value)
        broken = VirtualMachine.objects.filter(pk__in=failed.exclude(verdict=RequestVerdict.REFUSED.value).values("vm"))
    else:
        return []
    return [
        _named(mail, machines.granted_by(grants, role).order_by(), has_failed=False)[:1],
        _named(mail, broken.granted_by(grants).order_by("name"), has_failed=True)[: MAX_NAMES + 1],
    ]


def _named(
    mail: Mail, vms: QuerySet[VirtualMachine, VirtualMachine], *, has_failed: bool
) -> QuerySet[VirtualMachine, Any]:
    marked = vms.annotate(
        mail=Value(mail.pk, output_field=IntegerField()), has_failed=Value(has_failed, output_field=BooleanField())
    )
    return marked.values_list("mail", "has_failed", "name")
