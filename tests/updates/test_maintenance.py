"""What a maintenance configuration keeps: read strictly, refused at the door, and shut alone where it cannot be read."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import F, JSONField, Value
from django.test import Client
from django.urls import reverse
from django.utils.translation import override
from hypothesis import given
from hypothesis import strategies as st

from patching.terms import Classification, InstallationPlan, RebootSetting
from tests.factories import ConnectionFactory, VirtualMachineFactory
from updates.forms.maintenance import MaintenanceForm
from updates.models import MaintenanceConfiguration, Operation, Rollout
from updates.plans import PlanError, plan_from_json, plan_to_json
from updates.selectors.health import find_trouble
from updates.selectors.maintenance import UnreadableError, read_configuration, troubles_of
from updates.services.automation import (
    change_configuration,
    create_configuration,
    follow_schedules,
    open_windows,
    plan_next_run,
    switch_configuration,
    tick,
)
from updates.services.rollouts import advance_rollouts, resume_rollout
from vms.models import ResourceGroup, VirtualMachine

pytestmark = pytest.mark.django_db
PLAN = plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY})))
NOON = datetime(2026, 11, 24, 3, tzinfo=UTC)
OPENS = datetime(2026, 11, 24, 13, tzinfo=UTC)  # 22:00 in Tokyo

# What may stand in a column that no form wrote, and what is said of it.
UNREADABLE: list[tuple[str, object, str]] = [
    ("blackouts", [["2026-13-99", "2026-13-99"]], "“2026-13-99” is not a date"),
    ("blackouts", [["2026-02-30", "2026-03-01"]], "“2026-02-30” is not a date"),
    ("blackouts", [["2027-01-06", "2026-12-24"]], "ends before it begins"),
    ("blackouts", {"2026": 1}, "is not a period"),
    ("scope", {"region": "japaneast"}, "“region” is nothing that machines can be chosen by"),
    ("scope", ["japaneast"], "does not describe machines"),
    ("plan", {}, "“classifications” is missing or cannot be read"),
    ("plan", PLAN | {"kb_numbers_to_include": "5034129"}, "“kb_numbers_to_include” is missing or cannot be read"),
    ("plan", [], "“[]” is missing or cannot be read"),
    ("recur_every", "sometimes", "Begin with Day, Week or Month"),
    ("time_zone", "Moon Standard Time", "“Moon Standard Time” is no time zone of Windows"),
]


def configure(vm: VirtualMachine, **fields: Any) -> MaintenanceConfiguration:
    values: dict[str, Any] = {
        "name": f"m{MaintenanceConfiguration.objects.count()}",
        "starts_on": date(2026, 11, 24),
        "starts_at": time(22),
        "time_zone": "Tokyo Standard Time",
        "recur_every": "Day",
        "plan": PLAN,
    }
    row = MaintenanceConfiguration.objects.create(**(values | fields))
    row.vms.add(vm)
    return row


def machine(group: ResourceGroup, **facts: Any) -> VirtualMachine:
    values = {"patch_mode": "AutomaticByPlatform", "location": "japaneast", "power_state": "running"}
    return VirtualMachineFactory(resource_group=group, connection=ConnectionFactory(), **(values | facts))


@pytest.mark.parametrize(("column", "value", "said"), UNREADABLE)
def test_what_cannot_be_read_shuts_one_configuration_and_no_other(
    client: Client, chief: User, resource_group: ResourceGroup, column: str, value: object, said: str
) -> None:
    broken, fine = machine(resource_group), machine(resource_group)
    row, other = configure(broken), configure(fine)
    for one in (row, other):
        plan_next_run(configuration=one, now=NOON)
        assert one.next_run_at == OPENS
    MaintenanceConfiguration.objects.filter(pk=row.pk).update(**{column: value})
    tick(now=OPENS + timedelta(seconds=20))
    assert list(Rollout.objects.values_list("configuration_id", flat=True)) == [other.pk]
    row.refresh_from_db()
    assert row.next_run_at is None
    # its machines stay with it: no window is no reason to patch them some other night
    broken.refresh_from_db()
    assert broken.patcher == "portal_by_schedule"

    client.force_login(chief)
    pages = [reverse("updates:maintenance", args=[row.pk]), reverse("updates:maintenance-edit", args=[row.pk])]
    for address in pages:
        assert said in client.get(address).content.decode()
    assert "Cannot be read" in client.get(reverse("updates:maintenances")).content.decode()
    assert said not in client.get(reverse("updates:maintenance", args=[other.pk])).content.decode()
    (finding,) = [finding for finding in find_trouble() if finding.code == "configuration_unreadable"]
    assert (finding.count, said in finding.examples[0]) == (1, True)

    # switched off and on it stays shut; corrected it opens again
    for is_enabled in (False, True):
        switch_configuration(configuration_id=row.pk, is_enabled=is_enabled, now=NOON)
    row.refresh_from_db()
    assert row.next_run_at is None
    setattr(row, column, getattr(other, column))
    change_configuration(configuration=row, now=NOON)
    assert row.next_run_at == OPENS


@pytest.mark.parametrize(("column", "value", "_said"), UNREADABLE)
def test_a_form_keeps_what_can_be_read_and_chooses_nothing_by_itself(
    resource_group: ResourceGroup, column: str, value: object, _said: str
) -> None:
    """Whoever corrects one value does not lose another, and does not save a blackout away unseen."""
    fields = {"scope": {"location": "Japan East"}, "blackouts": [["2026-12-24", "2027-01-06"]], "plan": PLAN}
    row = configure(machine(resource_group), **(fields | {column: value}))
    form = MaintenanceForm(instance=row)
    shown = {name: form[name].value() for name in ("location", "blackouts", "classifications", "time_zone")}
    assert shown["location"] == (None if column == "scope" else "Japan East")
    assert shown["classifications"] == (None if column == "plan" else ["Security"])
    if column == "blackouts":
        assert shown["blackouts"] == json.dumps(value)
    else:
        assert shown["blackouts"] == "2026-12-24 to 2027-01-06"
    is_chosen = "selected>" in str(form["time_zone"])
    assert is_chosen is (column != "time_zone"), "no other zone is chosen in its place"


@pytest.mark.parametrize(("column", "value", "said"), UNREADABLE)
def test_no_door_keeps_what_cannot_be_read(
    chief: User, resource_group: ResourceGroup, column: str, value: object, said: str
) -> None:
    row = configure(machine(resource_group))
    setattr(row, column, value)
    with pytest.raises(UnreadableError, match=column) as caught:
        change_configuration(configuration=row, now=NOON)
    assert [trouble.column for trouble in caught.value.troubles] == [column]
    assert said in caught.value.troubles[0].words
    row.pk, row.name = None, "new"
    with pytest.raises(UnreadableError, match=column):
        create_configuration(configuration=row, created_by=chief, now=NOON)
    (kept,) = MaintenanceConfiguration.objects.all()
    assert troubles_of(kept) == ()


def test_every_value_that_cannot_be_read_is_named(resource_group: ResourceGroup) -> None:
    values = {column: value for column, value, _said in UNREADABLE}
    row = configure(machine(resource_group), **values)
    assert {trouble.column for trouble in troubles_of(row)} == set(values)
    with override("ja"):
        assert all(trouble.label and trouble.words for trouble in troubles_of(row))


def test_a_scope_that_cannot_be_read_means_no_machine(resource_group: ResourceGroup) -> None:
    named, other = machine(resource_group), machine(resource_group)
    row = configure(named, scope={"location": "japaneast", "unknown": "x"})
    follow_schedules()
    for vm, patcher in ((named, "portal_by_schedule"), (other, "portal_automatically")):
        vm.refresh_from_db()
        assert vm.patcher == patcher
    MaintenanceConfiguration.objects.filter(pk=row.pk).update(scope={"location": "japaneast"})
    follow_schedules()
    other.refresh_from_db()
    assert other.patcher == "portal_by_schedule"
    MaintenanceConfiguration.objects.filter(pk=row.pk).update(scope={"location": "japaneast", "unknown": "x"})
    follow_schedules()
    other.refresh_from_db()
    assert other.patcher == "portal_by_schedule", "whom it meant is not known any more: automatic patching takes nobody"


def test_a_form_of_what_cannot_be_read_is_shown_and_corrects_it(
    client: Client, chief: User, resource_group: ResourceGroup
) -> None:
    vm = machine(resource_group)
    row = configure(vm, blackouts=[["2026-02-30", "2026-03-01"]], starts_on=date.today() + timedelta(days=9))
    client.force_login(chief)
    address = reverse("updates:maintenance-edit", args=[row.pk])
    data = {
        "name": row.name,
        "starts_on": row.starts_on.isoformat(),
        "starts_at": "22:00",
        "time_zone": row.time_zone,
        "duration_minutes": "120",
        "recur_every": "Day",
        "blackouts": "2026-02-28 to 2026-03-01",
        "machines": vm.name,
        "classifications": ["Security"],
        "reboot_setting": "IfRequired",
        "go": "save",
    }
    assert client.post(address, data).status_code == 302
    row.refresh_from_db()
    assert row.blackouts == [["2026-02-28", "2026-03-01"]]
    assert row.next_run_at is not None
    assert read_configuration(row).plan.classifications == {Classification.SECURITY}


def test_a_rollout_whose_configuration_cannot_be_read_waits_alone(resource_group: ResourceGroup) -> None:
    vms = [machine(resource_group, availability_set="") for _ in range(2)]
    rows = [configure(vm) for vm in vms]
    for row in rows:
        plan_next_run(configuration=row, now=NOON)
    broken, fine = (rollout.pk for rollout in open_windows(now=OPENS))
    MaintenanceConfiguration.objects.filter(pk=rows[0].pk).update(blackouts=[["2026-13-99", "2026-13-99"]])
    advance_rollouts(now=OPENS)
    assert set(Operation.objects.values_list("vm_id", flat=True)) == {vms[1].pk}
    shown = Rollout.objects.get(pk=broken)
    assert (shown.status, shown.reason) == ("running", "rollout.configuration_unreadable")
    assert Rollout.objects.get(pk=fine).reason != "rollout.configuration_unreadable"
    MaintenanceConfiguration.objects.filter(pk=rows[0].pk).update(blackouts=[])
    Rollout.objects.update(next_step_at=F("created_at"))
    advance_rollouts(now=OPENS + timedelta(minutes=2))
    assert Operation.objects.filter(vm=vms[0]).exists(), "corrected, it goes on"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("lanes", [{"phase": 0}]),
        ("lanes", None),
        ("rings", {"pilot": 1}),
        ("proven", "5034129"),
        ("plan", {}),
    ],
)
def test_a_rollout_that_cannot_be_read_pauses_alone(
    client: Client, chief: User, resource_group: ResourceGroup, column: str, value: object
) -> None:
    vms = [machine(resource_group) for _ in range(2)]
    for vm in vms:
        plan_next_run(configuration=configure(vm), now=NOON)
    broken, fine = (rollout.pk for rollout in open_windows(now=OPENS))
    kept = Rollout.objects.filter(pk=broken)
    before = kept.values_list(column, flat=True).get()
    kept.update(**{column: Value(value, JSONField())})
    advance_rollouts(now=OPENS)
    assert set(Operation.objects.values_list("vm_id", flat=True)) == {vms[1].pk}
    assert kept.values_list("status", "reason", column).get() == ("paused", "rollout.unreadable", value)
    assert Rollout.objects.get(pk=fine).status == "running"
    client.force_login(chief)
    shown = client.get(reverse("updates:rollout", args=[broken])).content.decode()
    assert "What is recorded of it cannot be read" in shown
    # resumed it pauses again; once it can be read it goes on
    resume_rollout(rollout_id=broken, now=OPENS, resumed_by=chief)
    advance_rollouts(now=OPENS)
    assert kept.get().reason == "rollout.unreadable"
    kept.update(**{column: Value(before, JSONField())})
    resume_rollout(rollout_id=broken, now=OPENS, resumed_by=chief)
    advance_rollouts(now=OPENS)
    assert Operation.objects.filter(vm=vms[0]).exists()


# --- plans -------------------------------------------------------------------------------------------------------

texts = st.lists(st.text(max_size=5), max_size=3).map(tuple)
plans = st.builds(
    InstallationPlan,
    classifications=st.frozensets(st.sampled_from(Classification)),
    kb_numbers_to_include=texts,
    kb_numbers_to_exclude=texts,
    exclude_kbs_requiring_reboot=st.booleans(),
    max_patch_publish_date=st.none() | st.dates(),
    patch_name_masks_to_include=texts,
    patch_name_masks_to_exclude=texts,
    reboot_setting=st.sampled_from(RebootSetting),
    maximum_duration=st.integers(0, 20_000).map(lambda seconds: timedelta(seconds=seconds)),
    guard_overrides=texts,
)


@given(plans)
def test_a_plan_is_kept_exactly(plan: InstallationPlan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


@pytest.mark.parametrize("name", sorted(PLAN))
def test_a_plan_is_read_strictly(name: str) -> None:
    """What is missing or of another kind is named; nothing is taken for something near it."""
    bad: dict[str, list[object]] = {
        "classifications": ["Security", ["Urgent"], None],
        "exclude_kbs_requiring_reboot": ["no", 0, None],
        "max_patch_publish_date": ["2026-02-30", 20261124, False],
        "maximum_duration_seconds": ["7200", True, -1, 1e9, 10**30],
        "reboot_setting": ["Perhaps", None, ["Always"]],
    }
    for value in bad.get(name, ["5034129", [5034129], None, {}]):
        with pytest.raises(PlanError) as caught:
            plan_from_json(PLAN | {name: value})
        assert caught.value.entry == name
    with pytest.raises(PlanError):
        plan_from_json({key: value for key, value in PLAN.items() if key != name})
