"""The review of an installation on many machines, and its promise: what it says is what runs then do, or less."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patching.selection import RebootProspect, RunOutlook, RunWork
from patching.terms import Classification, InstallationPlan, OperationKind, RebootSetting
from tests.factories import (
    ConnectionFactory,
    OperationFactory,
    PatchFactory,
    ResourceGroupFactory,
    RoleAssignmentFactory,
    UserFactory,
    VirtualMachineFactory,
)
from tests.forms import fields_of, text_of
from tests.updates.pages import settle
from tests.updates.world import hand_out, lacking
from updates.models import (
    BulkOutcome,
    BulkRequest,
    Freeze,
    FreezeException,
    KbHold,
    Operation,
    Patch,
    PatchResult,
    Rollout,
    RolloutSource,
    VmUpdateState,
)
from updates.plans import PlanError, Promise, promise_from_json, promise_to_json
from updates.selectors.eta import foretell
from updates.selectors.review import Load, Review, load_review
from updates.services.bulk import Share, request_bulk
from updates.services.operations import request_assessments
from updates.services.rollouts import RolloutPlan, advance_rollouts, create_rollout
from vms.choices import Role, Scope
from vms.models import Connection, ResourceGroup, VirtualMachine
from vms.selection import VmSelection

pytestmark = pytest.mark.django_db
BULK = "/bulk/"
SECURITY = InstallationPlan(classifications=frozenset({Classification.SECURITY}))
NOTHING = RunOutlook(RunWork.NOTHING, RebootProspect.NEVER)


def patch(kb_number: str, **facts: Any) -> Patch:
    facts = {"classification": "Security", "reboot_behavior": "NeverReboots", "product_line": "ws2022"} | facts
    row: Patch = PatchFactory(kb_number=kb_number, **facts)
    return row


def fleet(group: ResourceGroup, count: int, *, site: Connection | None = None, **facts: Any) -> list[VirtualMachine]:
    site = site or ConnectionFactory(clock_factor=1e9)
    facts = {"power_state": "running"} | facts
    return [VirtualMachineFactory(resource_group=group, connection=site, **facts) for _ in range(count)]


def review_of(vms: list[VirtualMachine], plan: InstallationPlan = SECURITY) -> Review:
    return load_review(VmSelection.of(vm.pk for vm in vms), plan, now=timezone.now())


def said(review: Review) -> list[tuple[int, tuple[str, ...], str]]:
    """Of each row: how many machines, the KBs that they take, and whether they reboot, or why nothing is sent."""
    return [
        (
            group.count,
            tuple(verdict.patch.kb_number for verdict in group.taken),
            group.promise.code or group.promise.outlook.reboot.value,
        )
        for group in review.groups
    ]


# --- what it says ------------------------------------------------------------------------------------------------


def test_a_row_for_each_thing_that_the_plan_does(resource_group: ResourceGroup) -> None:
    calm, loud = patch("9000001"), patch("9000002", reboot_behavior="AlwaysRequiresReboot")
    vms = fleet(resource_group, 12)
    lacking(vms[:4], calm)
    lacking(vms[4:6], calm, patch("9000003", classification="Updates"))  # another set, and the same comes of it
    lacking(vms[6:9], calm, loud)
    lacking(vms[9:11])
    VirtualMachine.objects.filter(pk=vms[10].pk).update(is_reboot_pending=True)
    assert said(review_of(vms)) == [
        (6, ("9000001",), "never"),
        (3, ("9000001", "9000002"), "certain"),
        (1, (), "certain"),
        (1, (), "plan.nothing_to_do"),
        (1, (), "vm.not_assessed"),
    ]
    review = review_of(vms)
    assert (review.started, review.left_out, review.rebooting, review.perhaps_rebooting) == (10, 2, 4, 0)
    assert review.groups[0].promise.plan is not None
    assert review.groups[0].promise.plan.kb_numbers_to_include == ("9000001",)
    assert not review.groups[0].promise.plan.classifications


def test_what_is_refused_stands_there_with_its_reason(resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 8)
    lacking(vms, patch("9000001"))
    some = VirtualMachine.objects.filter
    some(pk=vms[0].pk).update(gone_at=timezone.now())
    OperationFactory(vm=vms[1], kind="installation")
    OperationFactory(vm=vms[7], kind="assessment")  # stands in nobody's way
    some(pk=vms[2].pk).update(update_status="unsupported")
    VmUpdateState.objects.filter(vm=vms[3]).update(is_awaiting_assessment=True)
    some(pk=vms[4].pk).update(power_state="deallocated")
    KbHold.objects.create(vm=vms[5], kb_number="9000001")
    review = load_review(
        VmSelection.of(vm.pk for vm in vms), SECURITY, now=timezone.now(), without_role=[vms[6].pk, vms[0].pk]
    )
    codes = {int(pk): g.promise.code for g in review.groups for pk in g.packed[1:-1].split(",")}
    assert codes == {
        vms[0].pk: "role.missing",
        vms[1].pk: "conflict.installation_open",
        vms[2].pk: "vm.unsupported",
        vms[3].pk: "vm.awaiting_assessment",
        vms[4].pk: "vm.not_running",
        vms[5].pk: "plan.nothing_to_do",
        vms[6].pk: "role.missing",
        vms[7].pk: "",
    }


def test_what_a_freeze_holds_is_left_out_and_the_runs_agree(operator: User, resource_group: ResourceGroup) -> None:
    """The freeze means one region, begins in an hour, and an exception lets one of its machines through."""
    held, let_through, free = vms = fleet(resource_group, 3)
    lacking(vms, patch("9000001"))
    VirtualMachine.objects.filter(pk__in=[held.pk, let_through.pk]).update(location="japanwest")
    now = timezone.now()
    times = {"begins_at": now + timedelta(hours=1), "ends_at": now + timedelta(days=9), "time_zone": "UTC"}
    freeze = Freeze.objects.create(name="New Year", scope={"location": "japanwest"}, **times)
    exception = FreezeException.objects.create(freeze=freeze, reason="a test", expires_at=now + timedelta(days=9))
    exception.vms.add(let_through)
    longer = replace(SECURITY, maximum_duration=timedelta(hours=2))
    codes = {pk: g.promise.code for g in review_of(vms, longer).groups for pk in g.packed[1:-1].split(",")}
    assert codes == {str(held.pk): "freeze.held", str(let_through.pk): "", str(free.pk): ""}
    assert said(review_of(vms, replace(SECURITY, maximum_duration=timedelta(minutes=30)))) == [
        (3, ("9000001",), "never")
    ]
    row, _review = ask(vms, operator, longer)
    assert hand_out() == 3
    told = dict(BulkOutcome.objects.filter(request=row).values_list("vm_id", "code"))
    assert told == {held.pk: "freeze.held", let_through.pk: "", free.pk: ""}


def test_the_guard_and_unknown_kbs_are_told(resource_group: ResourceGroup) -> None:
    title = "2026-05 Cumulative Update for Microsoft server operating system version 21H2 (KB9000003)"
    vms = fleet(resource_group, 2, hotpatch_track="on_track")
    lacking(vms, patch("9000001"), patch("9000003", title=title, reboot_behavior="AlwaysRequiresReboot"))
    plan = InstallationPlan(SECURITY.classifications, kb_numbers_to_include=("9999999",))
    review = review_of(vms, plan)
    assert said(review) == [(2, ("9000001",), "never")]
    assert [(left.kb_number, left.machines, left.is_ticked) for left in review.leaves] == [("9000003", 2, False)]
    assert review.unknown_kbs == ("9999999",)
    ticked = review_of(vms, InstallationPlan(SECURITY.classifications, guard_overrides=("9000003",)))
    assert said(ticked) == [(2, ("9000001", "9000003"), "certain")]
    assert ticked.leaves[0].is_ticked


def test_it_costs_the_same_queries_for_any_number(resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 60)
    for number, vm in enumerate(vms):
        lacking([vm], patch(f"90001{number:02}"))
    counts = []
    for some in (vms[:2], vms):
        with CaptureQueriesContext(connection) as queries:
            review_of(some)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6
    assert review_of(vms).others == (10, 10)


def test_a_mark_is_of_just_this_review(resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 2)
    one, other = patch("9000001"), patch("9000002")
    lacking(vms[:1], one)
    lacking(vms[1:], other)
    before = review_of(vms).mark
    assert before == review_of(vms).mark
    lacking(vms[:1], other)
    lacking(vms[1:], one)  # as many machines of each as before, but others
    assert before != review_of(vms).mark


# --- what it promises, step by step ------------------------------------------------------------------------------


def ask(vms: list[VirtualMachine], user: User, plan: InstallationPlan = SECURITY) -> tuple[BulkRequest, Review]:
    review = review_of(vms, plan)
    row = request_bulk(
        request_id=uuid.uuid4(),
        kind=OperationKind.INSTALLATION,
        selection=VmSelection.of(vm.pk for vm in vms),
        plan=plan,
        requested_by=user,
        shares=[Share(group.packed, group.promise) for group in review.groups],
    )
    return row, review


def test_what_changed_since_the_review_is_left_out_or_runs_as_it_was_confirmed(
    operator: User, resource_group: ResourceGroup
) -> None:
    one, other = patch("9000001"), patch("9000002", reboot_behavior="AlwaysRequiresReboot")
    same, more, pending, done, fresh, stopped = vms = fleet(resource_group, 6)
    lacking(vms[:5], one)
    VirtualMachine.objects.filter(pk=stopped.pk).update(power_state="stopped")
    lacking([stopped], one)
    row, _review = ask(vms, operator)
    lacking([more], one, other)
    VirtualMachine.objects.filter(pk=pending.pk).update(is_reboot_pending=True)
    lacking([done])
    VmUpdateState.objects.filter(vm=fresh).update(patch_set=None)
    VirtualMachine.objects.filter(pk=stopped.pk).update(power_state="running")
    assert hand_out() == 6
    row.refresh_from_db()
    assert (row.is_handed_out, row.vm_count, row.blocks.count()) == (True, 6, 2)
    codes = dict(BulkOutcome.objects.filter(request=row).values_list("vm_id", "code"))
    assert codes == {
        same.pk: "",
        more.pk: "",
        pending.pk: "plan.changed",
        done.pk: "plan.nothing_to_do",
        fresh.pk: "vm.not_assessed",
        stopped.pk: "vm.not_running",
    }
    payloads = dict(Operation.objects.values_list("vm_id", "payload"))
    assert {pk: (p["classifications"], p["kb_numbers_to_include"]) for pk, p in payloads.items() if p} == {
        same.pk: ([], ["9000001"]),
        more.pk: ([], ["9000001"]),  # and nothing that came later
    }


def test_a_rollout_keeps_the_promise_too(operator: User, resource_group: ResourceGroup) -> None:
    one, loud = patch("9000001"), patch("9000002", reboot_behavior="AlwaysRequiresReboot")
    calm, reboots, pending, stopped = vms = fleet(resource_group, 4, location="japaneast")
    lacking([calm, pending], one)
    lacking([reboots], one, loud)
    VirtualMachine.objects.filter(pk=stopped.pk).update(power_state="stopped")
    lacking([stopped], one)
    review = review_of(vms)
    what = RolloutPlan(
        name="x", source=RolloutSource.ON_DEMAND, plan=SECURITY, is_availability_first=False, most_failures=9
    )
    now = timezone.now()
    rollout = create_rollout(
        what=what,
        selection=VmSelection.of(vm.pk for vm in vms),
        now=now,
        created_by=operator,
        shares=[Share(group.packed, group.promise) for group in review.groups],
    )
    assert rollout.vm_count == 4
    VirtualMachine.objects.filter(pk=pending.pk).update(is_reboot_pending=True)
    VirtualMachine.objects.filter(pk=stopped.pk).update(power_state="running")
    lacking([calm], one, loud)
    for minutes in range(4):
        Rollout.objects.filter(next_step_at__isnull=False).update(next_step_at=now)
        advance_rollouts(now=now + timedelta(minutes=minutes))
        settled = Operation.objects.open()
        settled.update(state="succeeded", finished_at=now, next_step_at=None)
    codes = dict(rollout.members.values_list("vm_id", "code"))
    assert codes == {calm.pk: "", reboots.pk: "", pending.pk: "plan.changed", stopped.pk: "vm.not_running"}
    payloads = dict(Operation.objects.values_list("vm_id", "payload"))
    assert {pk: sorted(p["kb_numbers_to_include"]) for pk, p in payloads.items() if p} == {
        calm.pk: ["9000001"],
        reboots.pk: ["9000001", "9000002"],
    }


def test_a_promise_is_kept_exactly_and_read_strictly() -> None:
    for promise in (
        Promise(code="vm.not_running"),
        Promise(SECURITY, RunOutlook(RunWork.UPDATES, RebootProspect.POSSIBLE)),
    ):
        assert promise_from_json(promise_to_json(promise)) == promise
    good = promise_to_json(Promise(SECURITY, RunOutlook(RunWork.UPDATES, RebootProspect.NEVER)))
    bad: list[Any] = [
        None,
        [],
        {},
        {"code": ""},
        {"code": 1},
        good | {"work": "x"},
        good | {"reboot": None},
        good | {"plan": {}},
    ]
    for document in bad:
        with pytest.raises(PlanError):
            promise_from_json(document)


# --- what it promises, as a whole --------------------------------------------------------------------------------

BUILDS = ("20348.5020", "20348.4830", "20348.5074", "26100.32690")


def assessed_fleet(own: random.Random, user: User) -> list[VirtualMachine]:
    """Simulated machines at many places of the train, assessed; some stopped, off limits, never looked at or held back."""
    groups = [ResourceGroupFactory(), ResourceGroupFactory()]
    RoleAssignmentFactory(
        user=user, role=Role.OPERATOR.value, scope=Scope.RESOURCE_GROUP.value, resource_group=groups[0]
    )
    RoleAssignmentFactory(user=user, role=Role.READER.value, scope=Scope.RESOURCE_GROUP.value, resource_group=groups[1])
    site = ConnectionFactory(clock_factor=1e9)
    vms, builds = [], {}
    for _ in range(own.randint(4, 12)):
        build = own.choice(BUILDS)
        looks: dict[str, Any] = {"ws2025": True} if build.startswith("26100") else own.choice(({}, {"desktop": True}))
        vm = VirtualMachineFactory(
            resource_group=own.choice((groups[0], groups[0], groups[1])),
            connection=site,
            power_state="running",
            reboot_setting=own.choice(("IfRequired", "Never", "Always")),
            **looks,
        )
        vms.append(vm)
        builds[vm.pk] = build
    VmUpdateState.objects.bulk_create([VmUpdateState(vm_id=pk, os_build=build) for pk, build in builds.items()])
    known = [vm.pk for vm in vms if own.random() < 0.85]
    request_assessments(vm_ids=known, requested_by=None)
    settle()
    for vm in vms:
        if own.random() < 0.15:
            VirtualMachine.objects.filter(pk=vm.pk).update(power_state="stopped")
        lacks = VmUpdateState.objects.filter(vm=vm).values("patch_set")
        offered = list(Patch.objects.filter(memberships__patch_set__in=lacks).exclude(kb_number="").order_by("pk"))
        if offered and own.random() < 0.2:
            KbHold.objects.create(vm=vm, kb_number=own.choice(offered).kb_number)
    return vms


def a_plan(own: random.Random) -> InstallationPlan:
    offered = sorted({kb for kb in Patch.objects.values_list("kb_number", flat=True) if kb})
    classes = frozenset(own.sample(list(Classification), own.randint(0, 4)))
    return InstallationPlan(
        classifications=classes,
        kb_numbers_to_include=tuple(own.sample(offered, own.randint(0 if classes else 1, 3))),
        kb_numbers_to_exclude=tuple(own.sample(offered, own.randint(0, 2))),
        exclude_kbs_requiring_reboot=own.random() < 0.2,
        reboot_setting=own.choice(list(RebootSetting)),
        guard_overrides=tuple(own.sample(offered, own.randint(0, 1))),
        maximum_duration=timedelta(minutes=235),
    )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("recorded_catalogue")
def test_what_the_review_says_is_what_the_runs_do(seed: int) -> None:
    """Random fleets, selections and plans on the simulator: KBs and reboots of each machine; started = confirmed - refused."""
    own, user = random.Random(seed), UserFactory()
    vms = assessed_fleet(own, user)
    chosen = own.sample(vms, own.randint(1, len(vms)))
    plan = a_plan(own)
    mine = set(VirtualMachine.objects.visible_to(user, Role.OPERATOR).values_list("pk", flat=True))
    selection = VmSelection.of(vm.pk for vm in chosen)
    review = load_review(
        selection, plan, now=timezone.now(), without_role=[vm.pk for vm in chosen if vm.pk not in mine]
    )
    assert sum(group.count for group in review.groups) == len(chosen)
    row = request_bulk(
        request_id=uuid.uuid4(),
        kind=OperationKind.INSTALLATION,
        selection=selection,
        plan=plan,
        requested_by=user,
        shares=[Share(group.packed, group.promise) for group in review.groups],
    )
    hand_out()
    settle()
    outcomes = {o.vm_id: o for o in BulkOutcome.objects.filter(request=row).select_related("operation")}
    assert set(outcomes) == set(selection.ids)
    started = {pk for pk, outcome in outcomes.items() if outcome.operation is not None and not outcome.code}
    assert len(started) == review.started == selection.count - sum(bool(o.code) for o in outcomes.values())
    for group in review.groups:
        for pk in VmSelection(group.packed, group.count).ids:
            run = outcomes[pk].operation
            assert outcomes[pk].code == group.promise.code
            if run is None:
                assert not group.is_started
                continue
            results = PatchResult.objects.filter(operation=run, state="Installed")
            installed = set(results.values_list("patch__kb_number", flat=True))
            assert installed == {verdict.patch.kb_number for verdict in group.taken}, (seed, pk, run.error_code)
            reboots = {
                RebootProspect.NEVER: {"NotNeeded"},
                RebootProspect.POSSIBLE: {"NotNeeded", "Completed"},
                RebootProspect.CERTAIN: {"Completed"},
                RebootProspect.REQUIRED_BUT_NOT_ALLOWED: {"Required", "NotNeeded"},
            }
            assert run.reboot_status in reboots[group.promise.outlook.reboot], (seed, pk, run.reboot_status)
    Operation.objects.all().delete()


# --- how long ----------------------------------------------------------------------------------------------------


def load(machines: int, minutes: int = 20) -> Load:
    lasts = timedelta(minutes=minutes)
    return Load(machines, machines * lasts, lasts)


def test_how_long_it_takes_follows_rates_and_caps() -> None:
    now = timezone.now()
    free = ConnectionFactory(max_in_flight=1_000, starts_per_minute=None)
    slow = ConnectionFactory(max_in_flight=1_000, starts_per_minute=10)
    crowded = ConnectionFactory(max_in_flight=10, starts_per_minute=None)
    paused = ConnectionFactory(name="Paused lab", paused_until=now + timedelta(days=1))
    eta = foretell({free.pk: load(16)}, "{}", now=now)
    assert (eta.starts, eta.ends, eta.per_minute) == (timedelta(), timedelta(minutes=20), None)
    eta = foretell({free.pk: load(16), slow.pk: load(60)}, "{}", now=now)
    assert (eta.starts, eta.ends, eta.per_minute) == (timedelta(minutes=5), timedelta(minutes=25), 10)
    eta = foretell({crowded.pk: load(35)}, "{}", now=now)
    assert (eta.starts, eta.ends) == (timedelta(minutes=60), timedelta(minutes=80))
    eta = foretell({paused.pk: load(3)}, "{}", now=now)
    assert (eta.ends, eta.paused) == (timedelta(), ("Paused lab",))


# --- the pages ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(page: Client, resource_group: ResourceGroup) -> list[VirtualMachine]:
    """Three machines that take an update without a reboot, one that reboots, one stopped, one that lacks nothing."""
    vms = fleet(resource_group, 6)
    one = patch("9000001")
    lacking(vms[:3], one)
    lacking(vms[3:4], one, patch("9000002", reboot_behavior="AlwaysRequiresReboot"))
    lacking(vms[4:5], one)
    VirtualMachine.objects.filter(pk=vms[4].pk).update(power_state="stopped")
    lacking(vms[5:])
    return vms


def ticked(vms: list[VirtualMachine]) -> dict[str, Any]:
    return {"kind": "installation", "vm": [vm.pk for vm in vms]}


def reviewed(page: Client, asked: dict[str, Any], **typed: Any) -> Any:
    """The review of this request, opened through the first step as a reader does."""
    first = page.get(BULK, asked)
    assert first.status_code == 200
    return page.post(BULK, fields_of(first, BULK) | {"go": "review"} | typed)


def test_from_a_selection_to_what_runs(page: Client, lab: list[VirtualMachine]) -> None:
    first = page.get(BULK, ticked(lab))
    assert "Update classifications" in text_of(first)
    machines = page.post(BULK, fields_of(first, BULK) | {"go": "machines"})
    assert "These are the machines that you ticked." in text_of(machines)
    properties = page.post(BULK, fields_of(machines, BULK) | {"go": "properties", "classifications": ["Security"]})
    assert "In which order" in text_of(properties)
    review = page.post(BULK, fields_of(properties, BULK) | {"go": "review", "maximum_minutes": "60"})
    words = text_of(review)
    assert "Install on 4 machines , 1 reboots" in words or "Install on 4 machines, 1 reboots" in words
    assert "The machine is not running. Nothing is sent." in words
    assert "2 are left out, whatever becomes of them meanwhile." in words
    assert "Number of machines" not in words
    assert lab[0].name in words
    fields = fields_of(review, BULK) | {"go": "start"}
    for _ in range(2):  # a double click
        answer = page.post(BULK, fields)
        assert answer.status_code == 302
    row = BulkRequest.objects.get()
    assert (row.vm_count, row.plan["maximum_duration_seconds"]) == (6, 3600)
    assert hand_out() == 6
    assert BulkOutcome.objects.filter(request=row, verdict="accepted").count() == 4


def test_nothing_starts_that_nobody_has_reviewed(page: Client, lab: list[VirtualMachine]) -> None:
    review = reviewed(page, ticked(lab))
    fields = fields_of(review, BULK) | {"go": "start"}
    for wrong in ("", "0" * 64):
        answer = page.post(BULK, fields | {"reviewed": wrong})
        assert answer.status_code == 422
        assert "This is not what you confirmed" in text_of(answer)
    lacking(lab[:1])
    late = page.post(BULK, fields)
    assert late.status_code == 422
    assert "This is not what you confirmed" in text_of(late)
    assert not BulkRequest.objects.exists()
    assert page.post(BULK, fields_of(late, BULK) | {"go": "start"}).status_code == 302


def test_many_machines_and_all_that_match_are_confirmed_by_the_number_that_starts(
    page: Client, lab: list[VirtualMachine], resource_group: ResourceGroup
) -> None:
    review = reviewed(page, {"kind": "installation", "all": "1"})
    fields = fields_of(review, BULK) | {"go": "start"}
    for typed in ("", "6", "5"):
        assert page.post(BULK, fields | {"confirm": typed}).status_code == 422
    assert not BulkRequest.objects.exists()
    assert page.post(BULK, fields | {"confirm": "4"}).status_code == 302
    many = fleet(resource_group, 25)
    lacking(many, patch("9000009"))
    review = reviewed(page, ticked(many))
    fields = fields_of(review, BULK) | {"go": "start"}
    assert page.post(BULK, fields).status_code == 422
    assert page.post(BULK, fields | {"confirm": "25"}).status_code == 302
    few = reviewed(page, ticked(many[:24]))
    assert "Number of machines" not in text_of(few)


def test_a_kb_in_the_address_is_included_alone_and_leads_to_the_review(page: Client, lab: list[VirtualMachine]) -> None:
    review = page.get(BULK, {"kind": "installation", "all": "1", "lacks": "9000002", "include": "9000002"})
    words = text_of(review)
    assert review.status_code == 422 or "What happens" in words
    fields = fields_of(review, BULK)
    assert fields["kb_numbers_to_include"] == ["9000002"]
    assert "classifications" not in fields
    bad = page.get(BULK, {"kind": "installation", "all": "1", "include": "no-kb"})
    assert bad.status_code == 422
    assert "“no-kb” is not a KB article" in text_of(bad)


def test_in_waves_instead(page: Client, lab: list[VirtualMachine]) -> None:
    review = reviewed(page, ticked(lab))
    waves = page.post(BULK, fields_of(review, BULK) | {"go": "waves"})
    assert "As a rollout in waves, availability first." in text_of(waves)
    assert "/rollouts/" in page.post(BULK, fields_of(waves, BULK) | {"go": "start"})["Location"]
    assert Rollout.objects.get().members.filter(status="skipped").count() == 2


def test_a_wrong_field_keeps_its_step(page: Client, lab: list[VirtualMachine]) -> None:
    review = reviewed(page, ticked(lab), maximum_minutes="9999")
    assert review.status_code == 422
    assert review.context["wizard"].step == "properties"
    review = reviewed(page, ticked(lab), rings="pilot, pilot")
    assert (review.status_code, review.context["wizard"].step) == (422, "properties")


def test_an_unreadable_promise_stops_its_request_alone(operator: User, resource_group: ResourceGroup) -> None:
    vms = fleet(resource_group, 2)
    lacking(vms, patch("9000001"))
    bad, _ = ask(vms[:1], operator)
    bad.blocks.update(promise={"plan": {}})
    good, _ = ask(vms[1:], operator)
    hand_out()
    bad.refresh_from_db()
    assert bad.error_code == "bulk.failed"
    assert BulkOutcome.objects.get(request=good).verdict == "accepted"


# --- the same plan again -----------------------------------------------------------------------------------------


def run_of(vm: VirtualMachine, plan: dict[str, Any], **fields: Any) -> Operation:
    row: Operation = OperationFactory(vm=vm, kind="installation", failed=True, payload={"v": 1, **plan}, **fields)
    return row


def test_what_failed_is_asked_for_again_with_its_plan(page: Client, operator: User, lab: list[VirtualMachine]) -> None:
    row, _review = ask(lab[:4], operator)
    hand_out()
    Operation.objects.update(state="failed", finished_at=timezone.now(), next_step_at=None, error_code="patch.failed")
    runs = list(Operation.objects.values_list("pk", flat=True))
    assert len(runs) == 4
    url = reverse("updates:bulk-retry")
    review = page.post(url, {"operation": runs})
    assert review.status_code == 200
    assert "The same plan again." in text_of(review)
    fields = fields_of(review, BULK)
    assert fields["classifications"] == ["Security"]  # what was asked for, though each machine got its plan by name
    assert page.post(BULK, fields | {"go": "start"}).status_code == 302
    assert BulkRequest.objects.exclude(pk=row.pk).get().plan == row.plan


def test_what_cannot_go_together_is_named(
    page: Client, lab: list[VirtualMachine], make_plan: Callable[..., dict[str, Any]]
) -> None:
    url = reverse("updates:bulk-retry")
    one, other = run_of(lab[0], make_plan("9000001")), run_of(lab[1], make_plan("9000002"))
    masked = run_of(lab[2], make_plan("9000001", patch_name_masks_to_include=["x*"]))
    assessment = OperationFactory(vm=lab[0], kind="assessment", succeeded=True)
    theirs = run_of(VirtualMachineFactory(), make_plan("9000001"))
    broken = run_of(lab[3], {"nonsense": 1})
    for asked, words in (
        ([], "No operation is ticked."),
        (["x"], "“x” is no operation."),
        ([one.pk, theirs.pk], "is gone, or you may not see it"),
        ([one.pk, assessment.pk], "is no installation"),
        ([broken.pk], "cannot be read"),
        ([masked.pk], "selects updates by their titles"),
        ([one.pk, other.pk], "asked for with different plans"),
        ([uuid.uuid4() for _ in range(1_001)], "1,001 operations are more than go at once here."),
    ):
        answer = page.post(url, {"operation": asked})
        assert answer.status_code == 422, words
        assert words in text_of(answer)
        assert "Nothing was started." in text_of(answer)
    assert "KB9000001" in text_of(page.get(url, {"operation": [one.pk, other.pk]}))
    assert page.get(url, {"operation": [one.pk]}).status_code == 200


@pytest.fixture
def make_plan() -> Callable[..., dict[str, Any]]:
    """A plan as operations keep it, of one KB."""

    def make(kb_number: str, **fields: Any) -> dict[str, Any]:
        from updates.plans import plan_to_json

        return plan_to_json(InstallationPlan(kb_numbers_to_include=(kb_number,))) | fields

    return make
