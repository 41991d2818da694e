"""What an operation carries: JSON and back, exactly; what cannot be read is named, and stops nobody else."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from connectors.protocol import Observation, StartRequest
from patching.rollback import RollbackOrder
from patching.terms import Classification, InstallationPlan, OperationKind, PatchMode, PatchSettings, RebootSetting
from tests.updates.world import ScriptedConnector, make_due, make_vms, run
from updates.engine.claim import claim_due
from updates.engine.rows import ClaimedRow
from updates.models import Operation, OperationEvent, VmUpdateState
from updates.payloads import Payload, PayloadError, decode, encode, fields_of, read
from updates.services.operations import request_assessments, request_installations

K = OperationKind
PLAN = InstallationPlan(
    classifications=frozenset({Classification.SECURITY, Classification.CRITICAL}),
    kb_numbers_to_include=("5087424",),
    kb_numbers_to_exclude=("5084071", "890830"),
    exclude_kbs_requiring_reboot=True,
    max_patch_publish_date=date(2026, 5, 12),
    patch_name_masks_to_include=("*Server*",),
    reboot_setting=RebootSetting.NEVER,
    maximum_duration=timedelta(minutes=90),
    guard_overrides=("5087545",),
)
ORDER = RollbackOrder(("5087424",), "5082142", "20348.5020", must_install_target=True)
SETTINGS = PatchSettings(patch_mode=PatchMode.MANUAL, enable_hotpatching=True)


OWN: dict[OperationKind, Payload | None] = {
    K.ASSESSMENT: None,
    K.INSTALLATION: PLAN,
    K.ROLLBACK: ORDER,
    K.SETTINGS: SETTINGS,
    K.RESTART: None,
}

# What a request to a connector says of every operation; the rest is what a kind carries.
CARRIED = [
    field.name for field in fields(StartRequest) if field.name not in {"request_id", "kind", "vm", "requested_at"}
]


@pytest.mark.parametrize("kind", K)
def test_every_kind_comes_back_as_it_was_kept(kind: OperationKind) -> None:
    payload = OWN[kind]
    kept = encode(kind, payload)
    assert decode(kind, kept) == payload
    if kept is not None:
        assert kept["v"] == 1
        assert fields_of(kind, payload) == {name: value for name, value in kept.items() if name != "v"}


@pytest.mark.parametrize("kind", K)
def test_what_is_kept_reaches_the_connector(kind: OperationKind) -> None:
    text = json.dumps(encode(kind, OWN[kind])) if OWN[kind] else None
    begun = ClaimedRow.begun(uuid4(), 1, 1, kind, payload=text, created_at=timezone.now())
    facts: Any = SimpleNamespace(ref=None)
    row = begun._replace(facts=facts)
    for request in (row.start_request(), row.observe_request()):
        carried = [getattr(request, name) for name in CARRIED if getattr(request, name) is not None]
        assert carried == ([OWN[kind]] if OWN[kind] else [])


@pytest.mark.parametrize("kind", K)
def test_a_kind_takes_nothing_of_another(kind: OperationKind) -> None:
    for other, payload in OWN.items():
        if other is not kind:
            if payload is not None or OWN[kind] is not None:
                with pytest.raises(PayloadError, match=f"^{kind.value}: "):
                    encode(kind, payload)
            with pytest.raises(PayloadError, match=f"^{kind.value}: "):
                decode(kind, encode(other, payload) or {})


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        (K.INSTALLATION, {"v": 2}, "version 2"),
        (K.INSTALLATION, {"v": None}, "version None"),
        (K.INSTALLATION, {"classifications": ["Urgent"]}, "classifications"),
        (K.INSTALLATION, {"classifications": None}, "classifications"),
        (K.INSTALLATION, {"maximum_duration_seconds": "90 min"}, "seconds"),
        (K.INSTALLATION, {"max_patch_publish_date": "2026-13-99"}, "max_patch_publish_date"),
        (K.INSTALLATION, {"kb_numbers_to_include": "5087424"}, "kb_numbers_to_include"),
        (K.INSTALLATION, {"kb_numbers_to_exclude": [5087424]}, "kb_numbers_to_exclude"),
        (K.INSTALLATION, {"new_field": 1}, "new_field"),
        (K.INSTALLATION, {"exclude_kbs_requiring_reboot": 0}, "exclude_kbs_requiring_reboot"),
        (K.ROLLBACK, {"must_install_target": "yes"}, "must_install_target"),
        (K.ROLLBACK, {"target_build": None}, "target_build"),
        (K.SETTINGS, {"enable_hotpatching": 1}, "enable_hotpatching"),
        (K.SETTINGS, {"patch_mode": "Sometimes"}, "Sometimes"),
    ],
)
def test_an_unknown_version_or_shape_is_named(kind: OperationKind, change: dict[str, Any], named: str) -> None:
    with pytest.raises(PayloadError, match=f"^{kind.value}: .*{named}"):
        decode(kind, {**(encode(kind, OWN[kind]) or {}), **change})


def test_a_missing_field_is_named() -> None:
    kept = encode(K.ROLLBACK, ORDER) or {}
    del kept["target_kb"]
    with pytest.raises(PayloadError, match="'target_kb' is missing"):
        decode(K.ROLLBACK, kept)
    for nothing in (None, [], "x", 7):
        with pytest.raises(PayloadError, match="no fields are kept"):
            decode(K.ROLLBACK, nothing)
    with pytest.raises(PayloadError, match="carries nothing"):
        decode(K.ASSESSMENT, {"v": 1})


def keep(operation_id: Any, payload: object) -> None:
    Operation.objects.filter(pk=operation_id).update(payload=payload)


@pytest.mark.django_db
def test_an_operation_that_cannot_be_read_fails_alone_and_is_never_sent() -> None:
    good, newer, broken = make_vms(3)
    asked = request_installations(vm_ids=[good.pk, newer.pk, broken.pk], plan=PLAN, requested_by=None)
    operations = {outcome.vm_id: outcome.operation_id for outcome in asked}
    keep(operations[newer.pk], {**(encode(K.INSTALLATION, PLAN) or {}), "v": 2})
    keep(operations[broken.pk], None)
    make_due()
    connector = ScriptedConnector()
    run(connector)
    assert [request.vm.vm_id for request in connector.start_order] == [good.pk]
    rows = {row.vm_id: row for row in Operation.objects.filter(pk__in=operations.values())}
    assert rows[good.pk].state == "succeeded"
    assert (rows[newer.pk].state, rows[newer.pk].error_code) == ("failed", "payload.unreadable")
    assert rows[newer.pk].error_detail == "installation: version 2 is not known"
    assert (rows[broken.pk].state, rows[broken.pk].error_code) == ("failed", "payload.unreadable")
    assert OperationEvent.objects.filter(operation=rows[newer.pk], code="operation.finished").exists()
    assert not VmUpdateState.objects.filter(vm__in=[newer, broken], is_awaiting_assessment=True).exists()


@pytest.mark.parametrize("text", ['{"v": 1' + "0" * 5_000 + "}", "[" * 100_000 + "]" * 100_000])
def test_json_that_python_cannot_hold_is_a_problem_and_no_exception(text: str) -> None:
    found = read(K.INSTALLATION, text)
    assert (found.payload, found.problem[:13]) == (None, "installation:")


@pytest.mark.django_db
def test_one_that_has_begun_leaves_its_machine_unknown() -> None:
    (vm,) = make_vms()
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None)
    connector = ScriptedConnector(on_observe=lambda _request: Observation())
    run(connector)
    assert Operation.objects.get(pk=outcome.operation_id).state == "in_progress"
    keep(outcome.operation_id, {"v": 2})
    make_due()
    run(connector)
    row = Operation.objects.get(pk=outcome.operation_id)
    assert (row.state, row.error_code) == ("failed", "payload.unreadable")
    assert VmUpdateState.objects.get(vm=vm).is_awaiting_assessment


@pytest.mark.django_db
def test_an_assessment_that_carries_something_fails() -> None:
    (vm,) = make_vms()
    (outcome,) = request_assessments(vm_ids=[vm.pk], requested_by=None)
    keep(outcome.operation_id, {"v": 1})
    make_due()
    run(ScriptedConnector())
    assert Operation.objects.get(pk=outcome.operation_id).error_code == "payload.unreadable"


@pytest.mark.django_db
def test_the_claim_reads_what_was_asked() -> None:
    (vm,) = make_vms()
    plan = replace(PLAN, max_patch_publish_date=None)
    request_installations(vm_ids=[vm.pk], plan=plan, requested_by=None)
    ((row,),) = [claim.rows for claim in claim_due(priorities=(0, 1, 2))]
    assert (row.plan, row.rollback, row.settings, row.problem) == (plan, None, None, "")


@pytest.mark.django_db
@pytest.mark.parametrize("payload", [{"v": 2}, None, {"v": 1, "classifications": []}])
def test_the_pages_of_one_that_cannot_be_read_stand(payload: object, client: Client, admin_user: Any) -> None:
    (vm,) = make_vms()
    client.force_login(admin_user)
    (outcome,) = request_installations(vm_ids=[vm.pk], plan=PLAN, requested_by=None, operation_id=uuid4())
    keep(outcome.operation_id, payload)
    assert client.get(reverse("updates:operation", args=[outcome.operation_id])).status_code == 200
    assert client.get(reverse("updates:install", args=[vm.pk]), {"again": outcome.operation_id}).status_code == 200
