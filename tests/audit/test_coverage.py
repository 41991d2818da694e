"""The record covers what people can change: every table that a person can write to is kept, or says why it is not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.functional import Promise

from audit.commands import SignedCommand
from audit.tags import Tag
from patching.terms import OperationKind
from updates.services.acts import REQUESTS

ROOT = Path(__file__).resolve().parents[2]
OURS = ("vms", "updates", "people")
KEPT = {
    "auth_group",
    "auth_group_permissions",
    "auth_user",
    "auth_user_groups",
    "auth_user_user_permissions",
    "updates_kbhold",
    "updates_maintenanceconfiguration",
    "updates_maintenanceconfiguration_vms",
    "updates_patch",
    "updates_release",
    "updates_rollout",
    "vms_connection",
    "vms_imagecatalogentry",
    "vms_principalsecret",
    "vms_resourcegroup",
    "vms_roleassignment",
    "vms_savedview",
    "vms_serviceprincipal",
    "vms_subscription",
}
# By table: why no trigger of the record stands on it.
NOT_KEPT = {
    "hotpatch_portal_preferences": "concerns nobody but the person",
    "updates_bulkblock": "part of a bulk request",
    "updates_bulkoutcome": "answers of the portal to a bulk request",
    "updates_bulkrequest": "asking and cancelling are acts (updates.services.acts)",
    "updates_bucket": "the engine's",
    "updates_connectionpace": "the engine's",
    "updates_fleetsnapshot": "what was counted of the fleet on a day",
    "updates_workerheartbeat": "workers tell it of themselves",
    "vms_fleetcount": "totals of what machines say",
    "vms_listcolumns": "concerns nobody but the person",
    "vms_importjob": "the import that it carries out is an act (vms.services.import_jobs)",
    "vms_importpiece": "a file on its way",
    "vms_importrow": "a file on its way",
    "vms_inventorysync": "what a connection listed",
    "vms_machinedocument": "what a connection or a file said",
    "updates_installedpatch": "what assessments found",
    "updates_operation": "asking and cancelling are acts; what became of it is the operation itself",
    "updates_operationevent": "the timeline of an operation",
    "updates_patchevent": "a history itself",
    "updates_patchresult": "what runs reported",
    "updates_patchset": "what assessments found",
    "updates_patchsetmember": "what assessments found",
    "updates_releaseevent": "a history itself",
    "updates_rolloutmember": "what became of a machine in a rollout",
    "updates_vmupdatestate": "what assessments found",
    "updates_wordsclock": "the portal's",
    "vms_factsevent": "a history itself",
    "vms_importanswer": "what became of the rows; the import is an act",
    "vms_roleevent": "a history itself",
    "vms_settingsevent": "a history itself",
    "vms_virtualmachine": "has histories of its own (FactsEvent, SettingsEvent); what people do to it is an act",
    "vms_wordcount": "counters",
}
# Commands that change nothing that is kept, or record it by themselves.
UNSIGNED = {
    *("check_translations", "compile_translations", "doctor", "get_hotfix", "portal", "refresh_words"),
    *("arm_openapi", "serve_metrics", "simulate"),
}


# Columns that no event shows: the triggers leave them out, or the event says the same by itself.
UNSHOWN = {
    *("created_at", "created_by_id", "key", "lanes", "next_run_at", "next_step_at", "proven", "reason", "ring"),
    *("ring_ended_at", "wave", "wave_count"),
}


@pytest.mark.django_db
def test_every_table_is_kept_or_says_why_not() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid"
            " WHERE NOT tgisinternal AND prosrc LIKE '%INSERT INTO audit_auditevent%'"
        )
        kept = {row[0] for row in cursor.fetchall()}
    assert kept == KEPT
    tables = {
        model._meta.db_table
        for app in OURS
        for model in apps.get_app_config(app).get_models(include_auto_created=True)
        if not model._meta.proxy
    }
    assert tables - KEPT == NOT_KEPT.keys() - KEPT
    assert not KEPT & NOT_KEPT.keys()


# --- acts that no trigger sees -------------------------------------------------------------------------------------


def tags_in(tree: ast.Module) -> Iterator[str]:
    """The tags that a file names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Tag":
            yield node.attr


def test_every_column_that_is_shown_has_a_name_in_both_languages() -> None:
    """The Activity page names what changed by the field's name; that of a table of links is in Django's own catalogue."""
    unnamed = [
        f"{model._meta.label}.{field.name}"
        for app in OURS
        for model in apps.get_app_config(app).get_models()
        if model._meta.db_table in KEPT and not model._meta.proxy
        for field in model._meta.concrete_fields
        if not (field.primary_key or field.column in UNSHOWN or isinstance(field._verbose_name, Promise))
    ]
    assert unnamed == []


def test_every_tag_is_written_somewhere() -> None:
    files = [
        path
        for path in ROOT.rglob("*.py")
        if path.parts[len(ROOT.parts)] in {"audit", "vms", "updates", "people", "arm_api", "hotpatch_portal", "demo"}
        and "migrations" not in path.parts
    ]
    written = {name for path in files for name in tags_in(ast.parse(path.read_text()))}
    assert set(Tag.__members__) - written == set()


def test_a_person_who_asks_for_an_operation_is_kept_whatever_its_kind() -> None:
    by_what_changed = {OperationKind.SETTINGS}  # updates.services.settings
    assert set(REQUESTS) | by_what_changed == set(OperationKind)


def test_the_search_for_tags_finds_them() -> None:
    assert list(tags_in(ast.parse("record(acts=[Act(Tag.HOLD_LIFT)])"))) == ["HOLD_LIFT"]


def test_every_command_that_writes_is_signed() -> None:
    names = {
        name: load_command_class(app, name)
        for name, app in get_commands().items()
        if not app.startswith(("django.", "allauth", "pg", "django_", "whitenoise")) and isinstance(app, str)
    }
    unsigned = {name for name, command in names.items() if not isinstance(command, SignedCommand)}
    assert unsigned == UNSIGNED & names.keys()
    assert all(isinstance(command, BaseCommand) for command in names.values())
