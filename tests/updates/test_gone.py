"""Machines that are gone: kept and found, counted nowhere, and nothing starts on them by itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from patching.codes import ErrorCode
from tests.factories import VirtualMachineFactory
from tests.updates.world import PLAN, ScriptedConnector, make_vms, run
from updates.models import MemberState, Operation, RolloutSource, VmUpdateState
from updates.selectors.activity import load_activity
from updates.selectors.automation import vms_due_for_assessment
from updates.selectors.health import find_trouble
from updates.services.operations import RequestVerdict, request_assessments, request_installations
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.filters import VmFilter
from vms.models import FactsEvent, ResourceGroup, VirtualMachine, WordCount
from vms.selection import VmSelection
from vms.selectors import word_totals
from vms.services.counters import recount_words

pytestmark = pytest.mark.django_db
SINCE = datetime(2026, 5, 12, 3, 4, tzinfo=UTC)
URL = "/virtual-machines/"


def let_go(*vms: VirtualMachine) -> None:
    VirtualMachine.objects.filter(pk__in=[vm.pk for vm in vms]).update(gone_at=SINCE)


def names(query: str, client: Client) -> list[str]:
    return [vm.name for vm in client.get(f"{URL}{query}").context["page"].vms]


# --- the list ----------------------------------------------------------------------------------------------------


@pytest.fixture
def _fleet(resource_group: ResourceGroup) -> None:
    here, there, hidden = (VirtualMachineFactory(name=name, resource_group=resource_group) for name in ("a", "b", "c"))
    let_go(there, hidden)
    VirtualMachine.objects.filter(pk=here.pk).update(power_state="stopped")
    let_go(VirtualMachineFactory(name="d"))  # where the reader may not look


@pytest.mark.usefixtures("_fleet")
def test_the_list_leaves_them_out_and_says_how_many(client: Client, reader: User) -> None:
    client.force_login(reader)
    assert names("", client) == names("?gone=no", client) == ["a"]
    answer = client.get(URL)
    assert answer.context["gone"] == 2, "of those that the reader may see"
    assert "2 machines that match are gone and not shown." in answer.content.decode()
    select = answer.content.decode().partition('name="gone"')[2].partition("</select>")[0]
    assert re.findall(r'value="(\w*)"', select) == ["", "yes"], "what is so anyway makes no address longer"
    assert names("?gone=yes", client) == ["b", "c"]
    answer = client.get(f"{URL}?gone=yes")
    assert answer.context["gone"] == 0
    assert "These machines are gone" in answer.content.decode()


@pytest.mark.usefixtures("_fleet")
def test_what_cannot_be_read_shows_none_of_them_and_says_so(client: Client, reader: User) -> None:
    client.force_login(reader)
    answer = client.get(f"{URL}?gone=perhaps")
    assert [vm.name for vm in answer.context["page"].vms] == ["a"]
    assert [problem.name for problem in answer.context["filters"].ignored] == ["gone"]


@pytest.mark.usefixtures("_fleet")
def test_they_are_counted_behind_the_other_filters_and_the_words(client: Client, reader: User) -> None:
    client.force_login(reader)
    assert client.get(f"{URL}?q=b").context["gone"] == 1
    assert client.get(f"{URL}?power_state=stopped").context["gone"] == 0


@pytest.mark.usefixtures("_fleet")
def test_all_that_match_means_none_of_them(reader: User) -> None:
    assert [vm.name for vm in VmFilter.of(reader, {}).found] == ["a"]
    for word, is_active in (("no", False), ("yes", True)):
        filters = VmFilter.of(reader, {"gone": word})
        assert filters.qs.exists()
        assert filters.is_active is is_active


@pytest.mark.usefixtures("_fleet")
def test_no_counter_holds_them(reader: User) -> None:
    def counted() -> int:
        return sum(WordCount.objects.values_list("machines", flat=True))

    assert counted() == 1
    assert word_totals(reader)["update_status"].total() == 1
    recount_words()
    assert counted() == 1
    assert "counters_differ" not in {finding.code for finding in find_trouble()}
    VirtualMachine.objects.filter(name="b").update(gone_at=None)
    assert counted() == 2
    VirtualMachine.objects.filter(name__in=["a", "c"]).delete()
    assert counted() == 1


# --- what starts by itself ---------------------------------------------------------------------------------------


def test_nothing_is_asked_for_unless_a_person_asks(operator: User) -> None:
    gone, here = make_vms(2)
    let_go(gone)
    ids = [gone.pk, here.pk]
    for outcomes in (
        request_assessments(vm_ids=ids, requested_by=None),
        request_installations(vm_ids=ids, plan=PLAN, requested_by=None),
    ):
        assert {o.vm_id: (o.verdict, o.code) for o in outcomes} == {
            gone.pk: (RequestVerdict.REFUSED, ErrorCode.VM_GONE), here.pk: (RequestVerdict.ACCEPTED, ""),
        }  # fmt: skip
    (asked,) = request_assessments(vm_ids=[gone.pk], requested_by=operator)
    assert asked.verdict is RequestVerdict.ACCEPTED


def test_no_assessment_of_them_is_due() -> None:
    gone, here = make_vms(2)
    VirtualMachine.objects.update(assessment_mode="AutomaticByPlatform", power_state="running")
    let_go(gone)
    assert vms_due_for_assessment(timezone.now(), limit=10, with_never=True) == [here.pk]


def test_what_waits_when_a_machine_goes_is_never_sent(operator: User) -> None:
    mine, theirs, here = make_vms(3)
    request_assessments(vm_ids=[mine.pk, here.pk], requested_by=None)
    request_assessments(vm_ids=[theirs.pk], requested_by=operator)
    let_go(mine, theirs)
    connector = ScriptedConnector()
    run(connector)
    states = {
        vm_id: (state, code) for vm_id, state, code in Operation.objects.values_list("vm_id", "state", "error_code")
    }
    assert states == {mine.pk: ("failed", "vm.gone"), theirs.pk: ("succeeded", ""), here.pk: ("succeeded", "")}
    assert Operation.objects.get(vm=mine).pk not in connector.starts
    assert VmUpdateState.objects.get(vm=mine).error_code == "vm.gone", "its page says why it is not assessed"


@pytest.mark.parametrize("source", [RolloutSource.ON_DEMAND, RolloutSource.SCHEDULE])
def test_a_rollout_leaves_them_out_with_the_reason(operator: User, resource_group: ResourceGroup, source: Any) -> None:
    gone, here = (VirtualMachineFactory(resource_group=resource_group, power_state="running") for _ in range(2))
    let_go(gone)
    now = timezone.now()
    rollout = create_rollout(
        what=RolloutPlan(name="x", source=source, plan=PLAN, is_availability_first=False),
        selection=VmSelection.of([gone.pk, here.pk]), now=now, created_by=operator, rollout_id=uuid4(),
    )  # fmt: skip
    advance_rollouts(now=now)
    members = {row.vm_id: (row.status, row.code) for row in rollout.members.all()}
    assert members[gone.pk] == (MemberState.SKIPPED, ErrorCode.VM_GONE)
    assert members[here.pk][0] == MemberState.STARTED
    assert set(Operation.objects.values_list("vm_id", flat=True)) == {here.pk}


# --- what is told ------------------------------------------------------------------------------------------------


def test_its_history_says_when_it_went_and_came_back(
    client: Client, reader: User, resource_group: ResourceGroup
) -> None:
    vm = VirtualMachineFactory(resource_group=resource_group)
    let_go(vm)
    client.force_login(reader)
    assert "This machine is gone." in client.get(f"{URL}{vm.pk}/updates/").content.decode()
    VirtualMachine.objects.filter(pk=vm.pk).update(gone_at=None)
    assert "This machine is gone." not in client.get(f"{URL}{vm.pk}/updates/").content.decode()
    vm.refresh_from_db()
    back, went = [entry.facts for entry in load_activity(vm) if entry.facts]
    assert [(change.label, change.before, change.after) for change in went] == [("gone since", "", "2026-05-12 03:04")]
    assert [(change.before, change.after) for change in back] == [("2026-05-12 03:04", "")]
    assert FactsEvent.objects.filter(pgh_obj=vm, pgh_label="changed").count() == 2
