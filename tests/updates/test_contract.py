"""Whatever a connector does or says: every operation ends, with the right reason, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from connectors.protocol import (
    AssessmentResult,
    AssessmentSource,
    Capability,
    InstallationResult,
    Observation,
)
from connectors.registry import KINDS, Kind
from patching.lifecycle import MAX_START_ATTEMPTS
from patching.terms import InstalledUpdate, RebootStatus, RunStatus
from tests.connectors.scripted import (
    BUILD,
    DEFENDER,
    DOT_NET,
    LIES_ABOUT_FINDS,
    LIES_ABOUT_LOOKS,
    LIES_ABOUT_STARTS,
    TIMEOUT,
    Boasting,
    Forgetful,
    Losing,
    Lying,
    Piecemeal,
    Scripted,
    Throttled,
    partial,
)
from tests.updates.world import PLAN, make_due, make_vms, waits_for_reboot
from updates.engine.sweep import sweep
from updates.models import Bucket, InstalledPatch, Operation, VmUpdateState
from updates.selectors.catalogue import load_catalogue
from updates.selectors.vm_facts import load_vm_facts
from updates.services.assessments import AssessmentFound, record_assessments
from updates.services.operations import request_assessments, request_installations
from updates.services.restarts import request_restarts
from vms.models import Connection, VirtualMachine

pytestmark = pytest.mark.django_db


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Connection]:
    """A connection of a kind that can do what this connector can."""

    def make(connector: Any) -> Connection:
        kind: Kind = replace(KINDS["simulator"], name="scripted", capabilities=connector.capabilities)
        monkeypatch.setitem(KINDS, "scripted", kind)
        return Connection.objects.create(name="lab", kind="scripted")

    return make


def go(connector: Any, *, seconds: float = 0.2) -> None:
    sweep(seconds=seconds, connector_factory=lambda _row, _catalogue: connector)
    make_due()


def install(*vms: VirtualMachine) -> list[UUID]:
    outcomes = request_installations(vm_ids=[vm.pk for vm in vms], plan=PLAN, requested_by=None)
    return [outcome.operation_id for outcome in outcomes if outcome.operation_id]


def past_their_deadline() -> None:
    Operation.objects.open().update(deadline_at=timezone.now() - timedelta(seconds=1))
    make_due()


def ends() -> set[tuple[str, str]]:
    return set(Operation.objects.filter(kind="installation").values_list("state", "error_code"))


# --- liars -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES_ABOUT_STARTS.values(), ids=LIES_ABOUT_STARTS)
def test_what_is_said_about_starts_and_cannot_be_true_is_never_believed(lie, lab) -> None:
    connector = Lying(about_starts=lie)
    ids = install(*make_vms(2, connection=lab(connector)))
    for _ in range(4):
        go(connector)
    assert ends() == {("failed", "start.unconfirmed")}
    assert {pk: connector.received[pk] for pk in ids} == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("lie", LIES_ABOUT_STARTS.values(), ids=LIES_ABOUT_STARTS)
def test_no_lie_about_its_start_restarts_a_machine_twice(lie, lab) -> None:
    connector = Lying(capabilities=frozenset({Capability.RESTART}), about_starts=lie)
    vms = make_vms(2, connection=lab(connector))
    waits_for_reboot(*vms)
    asked = request_restarts(vm_ids=[vm.pk for vm in vms], requested_by=None)
    for _ in range(4):
        go(connector)
        request_restarts(vm_ids=[vm.pk for vm in vms], requested_by=None)  # somebody is impatient
    first = {outcome.operation_id for outcome in asked}
    rows = Operation.objects.filter(kind="restart", pk__in=first)
    assert set(rows.values_list("state", "error_code")) == {("failed", "start.unconfirmed")}
    assert {connector.received[pk] for pk in first if pk} == {1}


@pytest.mark.parametrize("name", LIES_ABOUT_LOOKS)
def test_what_is_said_about_a_run_and_cannot_be_kept_ends_it_at_its_deadline(name: str, lab) -> None:
    connector = Lying(about_looks=LIES_ABOUT_LOOKS[name])
    vms = make_vms(2, connection=lab(connector))
    ids = install(*vms)
    for _ in range(3):
        go(connector)
    assert ends() == {("in_progress", "")}, "another look may be better"
    past_their_deadline()
    go(connector)
    code = (
        "connector.silent"
        if name in {"two answers for one", "a page", "never", "patches that are none"}
        else "connector.garbage"
    )
    assert ends() == {("failed", code)}
    assert {pk: connector.received[pk] for pk in ids} == dict.fromkeys(ids, 1)
    assert Operation.objects.filter(kind="assessment").count() == 2, "that finds out"


def test_one_answer_that_cannot_be_kept_costs_the_others_nothing(lab) -> None:
    spoil = LIES_ABOUT_LOOKS["a text that cannot be kept"]
    connector = Lying(about_looks=lambda answers: [*spoil(answers[:1]), *answers[1:]])  # type: ignore[misc]
    first, *rest = install(*make_vms(3, connection=lab(connector)))
    for _ in range(2):
        go(connector)
    states = dict(Operation.objects.filter(kind="installation").values_list("pk", "state"))
    assert sorted(states.values()).count("succeeded") >= 2
    assert {connector.received[pk] for pk in (first, *rest)} == {1}


@pytest.mark.parametrize("lie", LIES_ABOUT_FINDS.values(), ids=LIES_ABOUT_FINDS)
def test_where_find_tells_nothing_a_lost_start_ends_unconfirmed_and_is_never_sent_again(lie, lab) -> None:
    connector = Lying(
        capabilities=frozenset({Capability.FIND_BY_REQUEST}),
        about_starts=lambda chunk: [(pk, TIMEOUT) for pk, _outcome in chunk],
        about_finds=lie,
    )
    ids = install(*make_vms(2, connection=lab(connector)))
    for _ in range(3):
        go(connector)
    assert ends() == {("starting", "")}
    past_their_deadline()
    go(connector)
    assert ends() == {("failed", "start.unconfirmed")}
    assert {connector.received[pk] for pk in ids} == {1}


def test_after_the_last_attempt_find_is_asked_until_the_deadline_too(lab) -> None:
    """What may run on its machine is not given up because one question went unanswered."""
    connector = Lying(
        capabilities=frozenset({Capability.FIND_BY_REQUEST}),
        seconds=60,
        about_starts=lambda chunk: [(pk, TIMEOUT) for pk, _outcome in chunk],
        about_finds=lambda answers: [TIMEOUT] * len(answers),
    )
    install(*make_vms(2, connection=lab(connector)))
    go(connector)
    Operation.objects.filter(kind="installation").update(attempts=MAX_START_ATTEMPTS)
    go(connector)
    assert ends() == {("starting", "")}
    connector.about_finds = lambda answers: answers
    go(connector)
    assert ends() == {("in_progress", "")}


def test_an_assessment_that_ends_at_once_and_cannot_be_kept_ends_at_its_deadline(lab) -> None:
    connector = Lying(capabilities=frozenset({Capability.FIND_BY_REQUEST}))
    spoilt = replace(DOT_NET, kb_number="", update_id="\x00")
    connector.assessment = lambda _r: AssessmentResult(RunStatus.SUCCEEDED, (spoilt,), is_reboot_pending=False)  # type: ignore[method-assign]
    (vm,) = make_vms(1, connection=lab(connector))
    (outcome,) = request_assessments(vm_ids=[vm.pk], requested_by=None)
    for _ in range(3):
        go(connector)
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, connector.received[row.pk]) == ("in_progress", 1)
    past_their_deadline()
    go(connector)
    row.refresh_from_db()
    assert (row.state, row.error_code) == ("failed", "connector.garbage")


@pytest.mark.parametrize("status", [RunStatus.UNKNOWN, RunStatus.IN_PROGRESS, "Frobnicated"])
def test_an_end_in_a_state_that_nobody_knows_is_a_failure_with_that_reason(status: Any, lab) -> None:
    """What the run did is not known: the machine waits for an assessment, and one is queued."""
    odd = InstallationResult(status, RebootStatus.UNKNOWN, is_maintenance_window_exceeded=False, patches=())
    connector = Scripted(seconds=0)
    (vm,) = make_vms(1, connection=lab(connector))
    install(vm)
    connector.ended = lambda _request: Observation(installation=odd)  # type: ignore[method-assign]
    go(connector)
    assert ends() == {("failed", "connector.garbage")}
    assert VmUpdateState.objects.get(vm=vm).is_awaiting_assessment
    connector.ended = lambda _r: Observation(assessment=AssessmentResult(status, (), is_reboot_pending=False))  # type: ignore[method-assign]
    go(connector)
    assessment = Operation.objects.get(kind="assessment", vm=vm)
    assert (assessment.state, assessment.error_code) == ("failed", "connector.garbage")
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.last_assessed_at, state.error_code) == (None, "connector.garbage")


def test_what_is_reported_as_installed_and_offered_again_is_contradicted_and_not_listed(lab) -> None:
    connector = Boasting()
    (vm,) = make_vms(1, connection=lab(connector))
    (pk,) = install(vm)
    go(connector)
    row = Operation.objects.get(pk=pk)
    assert (row.state, row.verification, row.installed_count) == ("succeeded", "contradicted", 1)
    assert not InstalledPatch.objects.filter(vm=vm).exists()


def test_a_look_that_is_put_off_for_ever_comes_within_the_hour(lab) -> None:
    connector = Scripted(seconds=0)
    connector.ended = lambda _r: Observation(look_again_after=1e12)  # type: ignore[method-assign]
    install(*make_vms(1, connection=lab(connector)))
    sweep(seconds=0.2, connector_factory=lambda _row, _catalogue: connector)
    row = Operation.objects.get(kind="installation")
    assert row.next_step_at is not None
    assert row.next_step_at <= timezone.now() + timedelta(hours=1)


# --- forgetful ---------------------------------------------------------------------------------------------------


def test_a_start_that_never_arrived_is_sent_again_and_arrives_once(lab) -> None:
    connector = Losing(seconds=0)
    ids = install(*make_vms(2, connection=lab(connector)))
    for _ in range(4):
        go(connector)
    assert ends() == {("succeeded", "")}
    assert {connector.received[pk] for pk in ids} == {1}
    assert {connector.sent[pk] for pk in ids} == {2}


def test_a_start_that_never_arrives_however_often_it_is_sent_ends(lab) -> None:
    connector = Losing(losses=1_000)
    ids = install(*make_vms(2, connection=lab(connector)))
    for _ in range(20):
        go(connector, seconds=0.05)
    assert ends() == {("failed", "connector.unreachable")}
    assert not connector.received
    assert {connector.sent[pk] for pk in ids} == {8}


def test_a_run_that_the_other_side_has_forgotten_ends_with_its_words_and_an_assessment_finds_out(lab) -> None:
    connector = Forgetful(seconds=0)
    (vm,) = make_vms(1, connection=lab(connector))
    (pk,) = install(vm)
    go(connector)
    assert ends() == {("failed", "NotFound")}
    assert connector.received[pk] == 1
    assert VmUpdateState.objects.get(vm=vm).is_awaiting_assessment
    assert Operation.objects.filter(kind="assessment", vm=vm).count() == 1


# --- throttled ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bucket", [None, ""], ids=["one by one", "the whole connection"])
@pytest.mark.parametrize("retry_after", [None, 5.0, float("inf"), float("nan")])
def test_what_is_throttled_is_sent_when_it_may_be_and_arrives_once(retry_after: float | None, bucket, lab) -> None:
    connector = Throttled(retry_after=retry_after, bucket_of=lambda _r: bucket, seconds=0)
    ids = install(*make_vms(2, connection=lab(connector)))
    go(connector)
    assert ends() <= {("queued", "")}
    connector.dry = False
    Bucket.objects.update(not_before=None, tokens=10, refilled_at=timezone.now())
    go(connector)
    assert ends() == {("succeeded", "")}
    assert {connector.received[pk] for pk in ids} == {1}


def test_a_start_in_doubt_that_is_throttled_ever_since_ends_at_its_deadline(lab) -> None:
    connector = Throttled(retry_after=86_400.0, bucket_of=lambda _r: "", seconds=0)
    connector.take = lambda _request: TIMEOUT  # type: ignore[method-assign]
    install(*make_vms(2, connection=lab(connector)))
    go(connector)
    assert ends() == {("starting", "")}
    del connector.take  # type: ignore[method-assign]
    sweep(seconds=0.2, connector_factory=lambda _row, _catalogue: connector)
    assert ends() == {("starting", "")}
    for at in Operation.objects.filter(kind="installation").values_list("next_step_at", flat=True):
        assert at is not None
        assert at <= timezone.now() + timedelta(hours=1), "only a look finds a deadline passed"
    past_their_deadline()
    for _ in range(2):
        go(connector)
    assert ends() == {("failed", "start.unconfirmed")}


# --- partial lists -----------------------------------------------------------------------------------------------


def test_where_nothing_is_told_what_runs_reported_is_listed_and_called_partial(lab) -> None:
    connector = partial()
    connector.seconds = 0
    (vm,) = make_vms(1, connection=lab(connector))
    (pk,) = install(vm)
    go(connector)
    (listed,) = InstalledPatch.objects.filter(vm=vm)
    assert (listed.patch.kb_number, listed.installed_by_id) == (DOT_NET.kb_number, pk)
    go(connector)
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.is_list_complete, state.os_build) == (False, BUILD)
    assert Operation.objects.get(pk=pk).verification == "confirmed"
    assert InstalledPatch.objects.filter(vm=vm).count() == 1, "an assessment that tells no list takes nothing off it"


def test_a_list_in_pieces_adds_up_and_is_not_called_complete(lab) -> None:
    connector = Piecemeal(seconds=0)
    (vm,) = make_vms(1, connection=lab(connector))
    for patch in (DEFENDER, replace(DOT_NET, kb_number="5084072", update_id="2")):
        connector.told = (InstalledUpdate(patch, timezone.now().replace(microsecond=0)),)
        request_assessments(vm_ids=[vm.pk], requested_by=None)
        go(connector)
    listed = InstalledPatch.objects.filter(vm=vm).values_list("patch__kb_number", flat=True)
    assert set(listed) == {DEFENDER.kb_number, "5084072"}
    assert not VmUpdateState.objects.get(vm=vm).is_list_complete


# --- assessments that others made --------------------------------------------------------------------------------


def taken_over(vm: VirtualMachine, **fields: Any) -> list[AssessmentFound]:
    catalogue = load_catalogue()
    facts = load_vm_facts([vm.pk], catalogue)[vm.pk]
    result = AssessmentResult(
        RunStatus.SUCCEEDED, (DOT_NET,), is_reboot_pending=False, source=AssessmentSource.ELSEWHERE, **fields
    )
    return record_assessments(found=[AssessmentFound(facts, result)], catalogue=catalogue, now=timezone.now())


def test_an_assessment_made_elsewhere_keeps_its_own_time_and_says_whose_it_is() -> None:
    (vm,) = make_vms()
    made = timezone.now() - timedelta(hours=5)
    assert len(taken_over(vm, assessed_at=made)) == 1
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.last_assessed_at, state.assessment_source) == (made, "elsewhere")


def test_an_older_assessment_changes_nothing() -> None:
    (vm,) = make_vms()
    newer = timezone.now() - timedelta(hours=1)
    taken_over(vm, assessed_at=newer, os_build="20348.5139")
    vm.refresh_from_db()
    before = (vm.update_status, vm.critical_and_security_count, vm.is_reboot_pending)
    told = (InstalledUpdate(DEFENDER, newer),)
    older = {"assessed_at": newer - timedelta(minutes=1), "os_build": BUILD, "installed": told}
    assert taken_over(vm, **older) == []
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.last_assessed_at, state.os_build) == (newer, "20348.5139")
    assert not InstalledPatch.objects.filter(vm=vm).exists()
    vm.refresh_from_db()
    assert (vm.update_status, vm.critical_and_security_count, vm.is_reboot_pending) == before


def test_one_from_the_future_counts_from_now_and_an_old_one_is_stale_at_once() -> None:
    early, late = make_vms(2)
    taken_over(early, assessed_at=timezone.now() + timedelta(days=1))
    at = VmUpdateState.objects.get(vm=early).last_assessed_at
    assert at is not None
    assert at <= timezone.now()
    taken_over(late, assessed_at=timezone.now() - timedelta(days=30))
    late.refresh_from_db()
    assert late.update_status == "no_updates_data"


def test_the_portal_s_own_assessment_counts_whatever_the_clock_says(lab) -> None:
    connector = Scripted(seconds=0)
    (vm,) = make_vms(1, connection=lab(connector))
    ahead = timezone.now() + timedelta(hours=2)
    VmUpdateState.objects.create(vm=vm, last_assessed_at=ahead, assessment_source="elsewhere")
    request_assessments(vm_ids=[vm.pk], requested_by=None)
    go(connector)
    state = VmUpdateState.objects.get(vm=vm)
    assert (state.os_build, state.assessment_source) == (BUILD, "portal")


def test_what_was_assessed_before_a_run_ended_says_nothing_about_the_run(lab) -> None:
    """Nor does what others made answer for a machine that the portal has to ask itself."""
    connector = partial()
    connector.seconds = 0
    (vm,) = make_vms(1, connection=lab(connector))
    (pk,) = install(vm)
    go(connector)
    VmUpdateState.objects.update_or_create(vm=vm, defaults={"is_awaiting_assessment": True})
    earlier = timezone.now() - timedelta(hours=1)
    old = AssessmentResult(
        RunStatus.SUCCEEDED, (), is_reboot_pending=False, assessed_at=earlier, source=AssessmentSource.ELSEWHERE
    )
    connector.ended = lambda _r: Observation(assessment=old)  # type: ignore[method-assign]
    go(connector)
    assert Operation.objects.get(kind="assessment").state == "succeeded"
    assert Operation.objects.get(pk=pk).verification == "pending"
    assert VmUpdateState.objects.get(vm=vm).is_awaiting_assessment


def test_a_run_whose_own_assessment_is_older_than_what_is_known_is_listed_and_looked_at_again(lab) -> None:
    connector = Piecemeal(seconds=0)
    (vm,) = make_vms(1, connection=lab(connector))
    known = timezone.now() - timedelta(hours=1)
    VmUpdateState.objects.create(vm=vm, last_assessed_at=known, os_build="20348.5139")
    (pk,) = install(vm)
    told = connector.assessment
    connector.assessment = lambda r: replace(told(r), assessed_at=known - timedelta(hours=1))  # type: ignore[method-assign]
    go(connector)
    assert ends() == {("succeeded", "")}
    (listed,) = InstalledPatch.objects.filter(vm=vm)
    assert (listed.patch.kb_number, listed.installed_by_id) == (DOT_NET.kb_number, pk)
    assert VmUpdateState.objects.get(vm=vm).os_build == "20348.5139"
    assert Operation.objects.get(pk=pk).verification == "pending", "the assessment that is queued will tell"
    assert Operation.objects.filter(kind="assessment", vm=vm).count() == 1


# --- where a machine is ------------------------------------------------------------------------------------------


def test_a_connector_is_told_where_a_machine_is(django_assert_max_num_queries) -> None:
    vms = make_vms(3)
    catalogue = load_catalogue()
    with django_assert_max_num_queries(3):
        facts = load_vm_facts([vm.pk for vm in vms], catalogue)
    places = {(fact.ref.subscription, fact.ref.location) for fact in facts.values()}
    assert places == {("11111111-2222-3333-4444-555555555555", "japaneast")}
