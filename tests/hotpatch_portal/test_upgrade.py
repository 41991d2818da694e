"""The migrations since the last version run over rows as that version left them, and lose none of what they mean."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

BEFORE = [
    ("updates", "0012_bulk_answers_are_a_log"),
    ("vms", "0010_group_index_covers_filters"),
    ("hotpatch_portal", "0002_preferences"),
]
NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def old(transactional_db: None) -> Iterator[MigrationExecutor]:
    """An empty database of the test server at the migrations of the last version; the connection leads to it meanwhile."""
    name, usual = f"upgrade_{uuid.uuid4().hex[:12]}", connection.settings_dict["NAME"]

    def lead_to(database: str) -> None:
        connection.close()
        connection.close_pool()
        connection.settings_dict["NAME"] = database

    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    lead_to(name)
    try:
        executor = MigrationExecutor(connection)
        executor.migrate(BEFORE)
        executor.loader.build_graph()
        yield executor
    finally:
        lead_to(usual)
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def fill(apps: Any) -> dict[str, Any]:
    """Three machines; releases; bulk requests of every kind; a rollout. Returns what is asked for later."""

    def make(model: str, **fields: Any) -> Any:
        return apps.get_model(model).objects.create(**fields)

    site = make("vms.Connection", name="Lab", kind="simulator", platform="azure", catalogue_date=date(2150, 1, 1))
    subscription = make("vms.Subscription", subscription_id=uuid.uuid4(), name="S")
    group = make("vms.ResourceGroup", subscription=subscription, name="rg")
    vms = [
        make(
            "vms.VirtualMachine", arm_id=f"/subscriptions/s/vm-{number}", name=f"vm-{number}", connection=site,
            resource_group=group, hotpatch_track="off_track_baseline_missed",
        )
        for number in range(3)
    ]  # fmt: skip
    for vm in vms:
        make("updates.VmUpdateState", vm=vm, last_assessed_at=NOW)
    patch = make("updates.Patch", product_line="ws2022", kb_number="5025230", title="April", classification="Security",
                 reboot_behavior="AlwaysRequiresReboot")  # fmt: skip
    month = {"product_line": "ws2022", "month": date(2023, 4, 1), "released_on": date(2023, 4, 11)}
    make("updates.Release", **month, kb_number="5025230", type="baseline", evidence="primary", patch=patch)
    may = month | {"month": date(2023, 5, 1), "released_on": date(2023, 5, 9)}
    make("updates.Release", **may, kb_number="5026370", type="hotpatch", evidence="primary", patch=patch)
    make("updates.Release", **month, kb_number="5025231", type="hotpatch", evidence="primary; type inferred")
    bulk = {
        "ticked": make("updates.BulkRequest", kind="assessment", selection={"vm": [vm.pk for vm in vms]}),
        "begun": make(
            "updates.BulkRequest", kind="assessment", selection={"vm": [vm.pk for vm in vms]}, cursor=vms[0].pk
        ),
        "matching": make("updates.BulkRequest", kind="assessment", selection={"filters": {"q": "vm"}}),
        "everything": make("updates.BulkRequest", kind="assessment", selection={}),
        "done": make("updates.BulkRequest", kind="assessment", selection={"filters": {}}, is_handed_out=True),
    }
    for name in ("begun", "done"):
        make("updates.BulkOutcome", request=bulk[name], vm=vms[0], verdict="accepted")
    return {"vms": [vm.pk for vm in vms], **{name: row.pk for name, row in bulk.items()}}


def test_rows_of_the_last_version_are_brought_forward(old: MigrationExecutor) -> None:
    told = fill(old.loader.project_state(BEFORE).apps)
    old.migrate(old.loader.graph.leaf_nodes())
    apps = MigrationExecutor(connection).loader.project_state().apps

    def rows(model: str, *fields: str) -> list[Any]:
        return list(apps.get_model(model).objects.order_by("pk").values_list(*fields))

    assert rows("updates.Release", "kb_number", "is_type_confirmed") == [
        ("5025230", True),
        ("5026370", True),
        ("5025231", False),
    ]
    assert rows("updates.Patch", "key") == [("ws2022:5025230",)]
    assert rows("vms.Connection", "config") == [
        ({"catalogue_date": "2100-12-31", "clock_factor": 60.0, "seed": 1},),
    ]
    assert set(rows("vms.VirtualMachine", "hotpatch_track")) == {("baseline_overdue",)}
    assert rows("vms.WordCount", "machines", "hotpatch_track") == [(3, "baseline_overdue")]
    assert set(rows("updates.VmUpdateState", "is_list_complete")) == {(True,)}
    vms = told["vms"]
    requests = {row[0]: row[1:] for row in rows("updates.BulkRequest", "pk", "is_handed_out", "error_code", "vm_count")}
    assert requests == {
        told["ticked"]: (False, "", 3),
        told["begun"]: (False, "", 3),
        told["matching"]: (True, "bulk.outdated", 0),
        told["everything"]: (True, "bulk.outdated", 0),
        told["done"]: (True, "", 1),
    }
    blocks = {(row[0], row[1]): row[2] for row in rows("updates.BulkBlock", "request", "number", "vm_ids")}
    assert blocks == {
        (told["ticked"], 0): vms,
        (told["begun"], 0): vms[:1],
        (told["begun"], 1): vms[1:],
        (told["done"], 0): vms[:1],
    }


def test_configurations_of_connections_move_back_and_forth(old: MigrationExecutor) -> None:
    """What the columns held stands in the configuration, and back in the columns; what they cannot hold is their default."""
    columns = [("vms", "0015_misfortune_tag_without_case"), ("updates", "0019_ready_for_hotpatches")]
    config = [("vms", "0016_connection_configuration")]
    old.migrate(columns)
    model = MigrationExecutor(connection).loader.project_state(columns).apps.get_model("vms.Connection")
    model.objects.create(name="A", kind="simulator", catalogue_date=date(2024, 8, 14), clock_factor=0.5, seed=7)
    model.objects.create(name="B", kind="simulator")
    MigrationExecutor(connection).migrate(config)
    model = MigrationExecutor(connection).loader.project_state(config).apps.get_model("vms.Connection")
    kept = dict(model.objects.values_list("name", "config"))
    assert kept == {
        "A": {"catalogue_date": "2024-08-14", "clock_factor": 0.5, "seed": 7},
        "B": {"catalogue_date": None, "clock_factor": 60.0, "seed": 1},
    }
    model.objects.create(name="C", kind="simulator", config={"catalogue_date": "soon", "clock_factor": -1, "seed": "x"})
    model.objects.create(name="D", kind="simulator", config=["odd"])
    MigrationExecutor(connection).migrate(columns)
    model = MigrationExecutor(connection).loader.project_state(columns).apps.get_model("vms.Connection")
    back = {row[0]: row[1:] for row in model.objects.values_list("name", "catalogue_date", "clock_factor", "seed")}
    assert back == {"A": (date(2024, 8, 14), 0.5, 7)} | dict.fromkeys("BCD", (None, 60.0, 1))


def test_preferences_and_the_permissions_on_them_move_with_their_room(old: MigrationExecutor) -> None:
    """The row stays, and so does the content type by its id, which permissions and the admin's log refer to."""
    apps = old.loader.project_state(BEFORE).apps
    person = apps.get_model("auth.User").objects.create(username="person")
    apps.get_model("hotpatch_portal.Preferences").objects.create(user=person, theme="dark")
    kind = apps.get_model("contenttypes.ContentType").objects.create(app_label="hotpatch_portal", model="preferences")
    permission = apps.get_model("auth.Permission").objects.create(content_type=kind, codename="change_preferences")
    person.user_permissions.add(permission)
    old.migrate(old.loader.graph.leaf_nodes())
    apps = MigrationExecutor(connection).loader.project_state().apps
    assert list(apps.get_model("people.Preferences").objects.values_list("user", "theme")) == [(person.pk, "dark")]
    moved = apps.get_model("contenttypes.ContentType").objects.get(pk=kind.pk)
    assert (moved.app_label, moved.model) == ("people", "preferences")
    given = apps.get_model("auth.User").objects.get(pk=person.pk).user_permissions.get()
    assert (given.pk, given.content_type_id) == (permission.pk, kind.pk)


def definition_of(index: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_indexdef(%s::regclass)", [index])
        return str(cursor.fetchall()[0][0])


def test_what_operations_carry_gets_its_version_and_loses_it_again(old: MigrationExecutor) -> None:
    """Back and forth: an installation keeps its plan, an assessment keeps nothing."""
    before, after = [("updates", "0026_assessment_source")], [("updates", "0027_operation_payload_and_priority")]
    old.migrate(before)
    apps = MigrationExecutor(connection).loader.project_state(before).apps
    site = apps.get_model("vms.Connection").objects.create(name="Lab", kind="simulator")
    subscription = apps.get_model("vms.Subscription").objects.create(subscription_id=uuid.uuid4(), name="S")
    group = apps.get_model("vms.ResourceGroup").objects.create(subscription=subscription, name="rg")
    vm = apps.get_model("vms.VirtualMachine").objects.create(
        arm_id="/subscriptions/s/vm", name="vm", connection=site, resource_group=group
    )
    plan = {"classifications": ["Security"], "kb_numbers_to_exclude": ["5084071"]}
    model = apps.get_model("updates.Operation")
    for kind, carried in (("installation", plan), ("assessment", None)):
        model.objects.create(vm=vm, connection=site, kind=kind, plan=carried, lane=2, created_at=NOW, next_step_at=NOW)
    MigrationExecutor(connection).migrate(after)
    model = MigrationExecutor(connection).loader.project_state(after).apps.get_model("updates.Operation")
    assert dict(model.objects.values_list("kind", "payload")) == {"installation": {"v": 1, **plan}, "assessment": None}
    assert set(model.objects.values_list("priority", flat=True)) == {2}
    assert "(connection_id, bucket, priority, next_step_at)" in definition_of("updates_operation_queued")
    MigrationExecutor(connection).migrate(before)
    model = MigrationExecutor(connection).loader.project_state(before).apps.get_model("updates.Operation")
    assert dict(model.objects.values_list("kind", "plan")) == {"installation": plan, "assessment": None}
    assert set(model.objects.values_list("lane", flat=True)) == {2}


def test_machines_that_are_gone_leave_the_counters_and_come_back_with_the_last_version(old: MigrationExecutor) -> None:
    """Back and forth: their history says once when they went."""
    before, after = [("vms", "0019_imports_as_jobs")], [("vms", "0020_gone_machines")]
    old.migrate(before)
    apps = MigrationExecutor(connection).loader.project_state(before).apps
    site = apps.get_model("vms.Connection").objects.create(name="Lab", kind="simulator")
    subscription = apps.get_model("vms.Subscription").objects.create(subscription_id=uuid.uuid4(), name="S")
    group = apps.get_model("vms.ResourceGroup").objects.create(subscription=subscription, name="rg")
    for name, gone_at in (("here", None), ("gone", NOW)):
        apps.get_model("vms.VirtualMachine").objects.create(
            arm_id=f"/subscriptions/s/{name}", name=name, connection=site, resource_group=group, gone_at=gone_at
        )

    def told(where: list[tuple[str, str]]) -> tuple[int, list[tuple[str, datetime]]]:
        apps = MigrationExecutor(connection).loader.project_state(where).apps
        events = apps.get_model("vms.FactsEvent").objects.filter(pgh_label="changed")
        counted = sum(apps.get_model("vms.WordCount").objects.values_list("machines", flat=True))
        return counted, list(events.values_list("name", "pgh_created_at"))

    assert told(before) == (2, [])
    for _ in range(2):
        MigrationExecutor(connection).migrate(after)
        assert told(after) == (1, [("gone", NOW)])
        MigrationExecutor(connection).migrate(before)
        assert told(before) == (2, [])
