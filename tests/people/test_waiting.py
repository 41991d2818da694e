"""What waits for a person: the number in the top bar, and the page behind it."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit.models import AuditEvent
from audit.tags import Tag
from patching.codes import ErrorCode, RolloutReason
from people.selectors.waiting import WaitingNumber, failed_bulk_requests
from tests.factories import OperationFactory, VirtualMachineFactory
from tests.forms import text_of
from updates.models import BulkBlock, BulkOutcome, BulkRequest, Rollout, RolloutMember, RolloutState, WordsClock
from updates.services.bulk_ends import finish_bulk_requests
from vms.models import ResourceGroup, RoleAssignment, VirtualMachine

pytestmark = pytest.mark.django_db
URL = "/waiting/"


@pytest.fixture
def vm(resource_group: ResourceGroup) -> VirtualMachine:
    return VirtualMachineFactory(name="web-001", resource_group=resource_group)


def a_rollout(by: User | None, *vms: VirtualMachine, **fields: Any) -> Rollout:
    usual = {
        "name": "November", "source": "on_demand", "plan": {}, "created_by": by, "created_at": timezone.now(),
        "status": RolloutState.PAUSED, "reason": RolloutReason.BUDGET_USED,
    }  # fmt: skip
    rollout: Rollout = Rollout.objects.create(**(usual | fields))
    RolloutMember.objects.bulk_create([RolloutMember(rollout=rollout, vm=vm, wave=0) for vm in vms])
    return rollout


def a_request(by: User, *states: str, vm: VirtualMachine | None = None, **fields: Any) -> BulkRequest:
    """A request with an operation in each of these states (of the factory's traits; "queued": none)."""
    request: BulkRequest = BulkRequest.objects.create(
        kind="assessment", requested_by=by, vm_count=len(states), **({"is_handed_out": True} | fields)
    )
    group = vm.resource_group if vm else ResourceGroup.objects.get(name="rg-ours")
    vms = [VirtualMachineFactory(resource_group=group) for _state in states]
    BulkBlock.objects.create(request=request, number=0, vm_ids=[one.pk for one in vms])
    for one, state in zip(vms, states, strict=True):
        operation = OperationFactory(vm=one, **({} if state == "queued" else {state: True}))
        BulkOutcome.objects.create(request=request, vm=one, verdict="accepted", operation=operation)
    return request


def number(user: User) -> int:
    return WaitingNumber(User.objects.get(pk=user.pk)).count


# --- when a bulk request has ended -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "fields", "ends", "failed"),
    [
        (["succeeded", "failed", "failed"], {}, True, 2),
        (["succeeded"], {}, True, 0),
        (["failed", "queued"], {}, False, 0),
        (["failed", "in_progress"], {}, False, 0),
        (["failed"], {"is_handed_out": False}, False, 0),
        ([], {"error_code": ErrorCode.BULK_FAILED}, True, 0),
    ],
)
def test_a_request_ends_with_its_last_operation(
    operator: User, states: list[str], fields: dict[str, Any], ends: bool, failed: int
) -> None:
    request = a_request(operator, *states, **fields)
    now = timezone.now()
    assert finish_bulk_requests(now=now) == int(ends)
    request.refresh_from_db()
    assert (request.finished_at, request.failed_count) == (now if ends else None, failed)
    events = AuditEvent.objects.filter(tag=Tag.BULK_FINISH.value)
    assert events.count() == int(ends)
    if ends:
        assert events[0].detail["failed"] == failed
        assert (events[0].owner_key, events[0].object_id) == (operator.pk, str(request.pk))
    assert finish_bulk_requests(now=now) == 0
    assert events.count() == int(ends)


def test_an_operation_that_was_refused_or_is_of_others_holds_nothing_up(operator: User) -> None:
    request = a_request(operator, "failed")
    open_one = OperationFactory()
    BulkOutcome.objects.create(request=request, vm=open_one.vm, verdict="refused", operation=open_one, code="x")
    OperationFactory()
    assert finish_bulk_requests(now=timezone.now()) == 1
    request.refresh_from_db()
    assert request.failed_count == 1


def test_looking_for_ended_requests_costs_the_same(operator: User, django_assert_num_queries: Any) -> None:
    for count in (1, 6):
        for _ in range(count):
            a_request(operator, "failed")
        with CaptureQueriesContext(connection) as queries:
            assert finish_bulk_requests(now=timezone.now()) == count
        assert len(queries) <= 5


# --- the number --------------------------------------------------------------------------------------------------------


def test_a_paused_rollout_waits_for_who_may_resume_it(
    chief: User, staff: User, operator: User, reader: User, owner: User, outsider: User, vm: VirtualMachine
) -> None:
    a_rollout(operator, vm)
    a_rollout(reader, vm)  # made it, and may not resume it
    a_rollout(operator, vm, status=RolloutState.RUNNING)
    a_rollout(operator, VirtualMachineFactory())  # holds no role on its machine any more
    found = {user.username: number(user) for user in (chief, staff, operator, reader, owner, outsider)}
    assert found == {"chief": 3, "staff": 3, "operator": 1, "reader": 0, "owner": 0, "outsider": 0}
    assert WaitingNumber(AnonymousUser()).count == 0
    RoleAssignment.objects.filter(user=operator).delete()
    assert number(operator) == 0


def test_questions_wait_for_who_may_decide(chief: User, operator: User) -> None:
    question = ["ws2022", "5999999", "An update that nobody knows", "2026-05-19", "unknown_os_update", 5, []]
    WordsClock.objects.create(pk=1, news={"ages": [], "waiting": [question]})
    assert (number(chief), number(operator)) == (1, 0)


def test_a_failed_request_waits_for_who_made_it_until_it_is_seen_to(
    client: Client, operator: User, chief: User, reader: User
) -> None:
    request, fine = a_request(operator, "failed", "succeeded"), a_request(operator, "succeeded")
    a_request(operator, "failed", "queued")
    finish_bulk_requests(now=timezone.now())
    assert (number(operator), number(chief)) == (1, 0)
    client.force_login(chief)
    assert client.post(f"/waiting/{request.pk}/seen/").status_code == 404
    client.force_login(operator)
    page = text_of(client.get(URL))
    assert "1 of 2 machines failed" in page
    assert f"/bulk/{fine.pk}/" not in client.get(URL).content.decode()
    assert client.post(f"/waiting/{request.pk}/seen/").status_code == 302
    assert number(operator) == 0
    assert "Nothing waits for you" in text_of(client.get(URL))
    assert client.post(f"/waiting/{uuid.uuid4()}/seen/").status_code == 404


def test_a_failed_request_waits_for_a_week(operator: User) -> None:
    a_request(operator, "failed")
    finish_bulk_requests(now=timezone.now() - timedelta(days=6))
    assert number(operator) == 1
    BulkRequest.objects.update(finished_at=timezone.now() - timedelta(days=8))
    assert number(operator) == 0


def test_a_request_that_could_not_be_handed_out_waits(client: Client, operator: User) -> None:
    a_request(operator, "succeeded", error_code=ErrorCode.BULK_FAILED)
    finish_bulk_requests(now=timezone.now())
    assert number(operator) == 1
    assert failed_bulk_requests(operator, timezone.now()).count() == 1


@pytest.mark.parametrize(("count", "words"), [(0, None), (2, "2"), (99, "99"), (130, "99+")])
def test_the_top_bar_shows_it_on_every_page(client: Client, chief: User, count: int, words: str | None) -> None:
    Rollout.objects.bulk_create(
        Rollout(name="r", source="on_demand", plan={}, status=RolloutState.PAUSED, created_at=timezone.now())
        for _ in range(count)
    )
    client.force_login(chief)
    for where in ("/", "/virtual-machines/", "/calendar/", URL):
        html = client.get(where).content.decode()
        found = re.search(r'class="topbar-count">([^<]*)<', html)
        assert (found and found[1]) == words, where


def test_the_page_gives_each_with_its_reason_and_where_it_is_answered(
    client: Client, chief: User, vm: VirtualMachine
) -> None:
    rollout = a_rollout(None, vm, name="<b>Evil</b>")
    question = ["ws2022", "5999999", "An update that nobody knows", "2026-05-19", "unknown_os_update", 5, []]
    WordsClock.objects.create(pk=1, news={"ages": [], "waiting": [question]})
    client.force_login(chief)
    answer = client.get(URL)
    html = answer.content.decode()
    assert f'href="{rollout.get_absolute_url()}"' in html
    assert 'href="/decisions/#kb5999999-ws2022"' in html
    assert "<b>Evil</b>" not in html
    assert "Too many machines failed or are unhealthy." in text_of(answer)


# --- what it costs -------------------------------------------------------------------------------------------------------


def test_the_number_costs_one_query_and_two_where_something_waits(
    operator: User, chief: User, vm: VirtualMachine
) -> None:
    def cost(user: User) -> int:
        reader = User.objects.get(pk=user.pk)
        with CaptureQueriesContext(connection) as queries:
            _count = WaitingNumber(reader).count
        return len(queries)

    assert cost(operator) == cost(chief) == 2  # grants, and what may wait
    for count in (1, 30):
        for _ in range(count):
            a_rollout(operator, vm)
        assert cost(chief) == 2
        assert cost(operator) == 3


def test_it_is_read_through_its_indexes(operator: User, vm: VirtualMachine) -> None:
    Rollout.objects.bulk_create(
        Rollout(
            name="r",
            source="on_demand",
            plan={},
            status=RolloutState.FINISHED,
            created_at=timezone.now(),
            created_by=operator,
        )
        for _ in range(3_000)
    )
    BulkRequest.objects.bulk_create(
        BulkRequest(
            kind="assessment",
            requested_by=operator,
            is_handed_out=True,
            finished_at=timezone.now(),
            seen_at=timezone.now(),
        )
        for _ in range(3_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE updates_rollout; ANALYZE updates_bulkrequest")
    with CaptureQueriesContext(connection) as queries:
        assert number(operator) == 0
    (sql,) = (query["sql"] for query in queries if "updates_bulkrequest" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "updates_rollout_paused" in plan
    assert "updates_bulkrequest_unseen" in plan
