"""Every address of the portal and its admin site: the answer for each kind of person, and how the address is made."""

from __future__ import annotations

from datetime import date, time, timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from arm_api.tokens import tenant_id
from patching.terms import Classification, InstallationPlan
from updates.models import (
    BulkBlock,
    BulkRequest,
    Freeze,
    FreezeException,
    MaintenanceConfiguration,
    Operation,
    Patch,
    Rollout,
    RolloutMember,
)
from updates.plans import plan_to_json
from vms.import_models import ImportJob
from vms.models import RoleAssignment, SavedView, VirtualMachine
from vms.principal_models import ServicePrincipal
from vms.services.principals import add_secret, create_principal

WHO = ("anonymous", "outsider", "reader", "operator", "owner", "chief", "staff")
# name: (method, {who: status}); `see` is for what shows one VM, `do` for what takes a role on it
SIGNED_IN = dict.fromkeys(WHO, 200) | {"anonymous": 302}
SEE = SIGNED_IN | {"outsider": 404}
OPERATE = SEE | {"reader": 403}
OWN = OPERATE | {"operator": 403}
IMPORT = dict.fromkeys(WHO, 403) | {"anonymous": 302, "chief": 200, "staff": 200}
OWN_VIEW = dict.fromkeys(WHO, 404) | {"anonymous": 302, "chief": 200}

GIVE = IMPORT | {"owner": 200, "outsider": 200}
TAKE = SIGNED_IN | {"outsider": 404, "reader": 403, "operator": 404}


def redirecting(table: dict[str, int]) -> dict[str, int]:
    """The same for a form that leads to another page."""
    return {who: 302 if status == 200 else status for who, status in table.items()}


# --- the admin site: what an administrator gets; a member of staff with no permission gets 403, everybody else the sign-in

CHANGE = {"changelist": 200, "add": 200, "change": 200, "history": 200, "delete": 200}
LOOK = CHANGE | {"add": 403, "delete": 403}
ADMIN_MODELS: dict[str, dict[str, int]] = {
    "updates_release": CHANGE | {"import": 200},
    "updates_patch": CHANGE | {"import": 200},
    "updates_operation": LOOK,
    "vms_imagecatalogentry": CHANGE,
    "vms_connection": CHANGE,
    "vms_subscription": CHANGE,
    "vms_resourcegroup": CHANGE,
    "vms_virtualmachine": CHANGE | {"add": 403},
    "vms_roleassignment": CHANGE,
    "vms_factsevent": LOOK,
    "vms_settingsevent": LOOK,
    "vms_roleevent": LOOK,
    "notifications_mail": LOOK,
    "auth_group": CHANGE,
    "auth_user": CHANGE | {"password_change": 200},
    "usersessions_usersession": CHANGE,
}
# (administrator, staff without permission); what everybody on the staff may see of the site itself
ADMIN_SITE: dict[str, tuple[int, int]] = {
    "admin:index": (200, 200),
    "admin:login": (302, 302),
    "admin:logout": (405, 405),  # a POST, which the table of LIBRARY's pages has
    "admin:password_change": (200, 200),
    "admin:password_change_done": (200, 200),
    "admin:autocomplete": (403, 403),  # names no field to complete
    "admin:jsi18n": (200, 200),
    "admin:view_on_site": (404, 404),
    "admin:app_list": (200, 404),
}
ADMIN_DOORS = ADMIN_SITE | {
    f"admin:{model}_{action}": (status, 403)
    for model, actions in ADMIN_MODELS.items()
    for action, status in actions.items()
}


def empty(table: dict[str, int]) -> dict[str, int]:
    """The same for a form that lacks what it needs."""
    return {who: 422 if status == 200 else status for who, status in table.items()}


DOORS: dict[tuple[str, str], dict[str, int]] = {
    # what probes ask for; no worker was heard of here, and no token is set (tests/hotpatch_portal/test_outside.py)
    **{(method, "healthz"): dict.fromkeys(WHO, 200) for method in ("get", "head")},
    **{(method, "readyz"): dict.fromkeys(WHO, 503) for method in ("get", "head")},
    **{(method, "metrics"): dict.fromkeys(WHO, 404) for method in ("get", "head")},
    ("get", "home"): SIGNED_IN,
    ("get", "tour"): SIGNED_IN,
    # without a demo there is nothing to reset (tests/demo/test_tour.py has one)
    ("post", "demo-reset"): dict.fromkeys(WHO, 404) | {"anonymous": 302},
    # 286: nothing to wait for
    ("get", "updates:ended"): dict.fromkeys(WHO, 286) | {"anonymous": 302},
    ("get", "vms:vm-list"): SIGNED_IN,
    ("get", "vms:images"): SIGNED_IN,
    # says nothing of what is to be done with the ticks (tests/vms/test_ticks.py)
    ("post", "vms:list-ticks"): dict.fromkeys(WHO, 400) | {"anonymous": 302},
    ("get", "vms:list-columns"): SIGNED_IN,
    ("get", "vms:suggestions"): SIGNED_IN,
    ("post", "vms:list-columns"): redirecting(SIGNED_IN),
    ("get", "vms:view-save"): SIGNED_IN,
    ("post", "vms:view-save"): empty(SIGNED_IN),
    # a shared view of the chief's; one's own is nobody else's at all (tests/vms/test_list.py)
    ("get", "vms:view"): redirecting(SIGNED_IN),
    ("get", "vms:view-remove"): OWN_VIEW | {"staff": 200},
    ("post", "vms:view-remove"): redirecting(OWN_VIEW | {"staff": 200}),
    ("get", "vms:view-edit"): OWN_VIEW,
    ("post", "vms:view-edit"): empty(OWN_VIEW),
    ("get", "vms:view-replace"): OWN_VIEW,
    ("post", "vms:view-replace"): redirecting(OWN_VIEW),
    ("get", "vms:vm-import"): IMPORT,
    ("get", "vms:import-job"): IMPORT,
    ("get", "vms:import-answers"): IMPORT,
    ("post", "vms:import-cancel"): redirecting(IMPORT),
    ("post", "vms:inventory-sync"): redirecting(IMPORT),
    # the outsider owns another resource group, and may make VMs there
    ("get", "vms:vm-create"): IMPORT | {"owner": 200, "outsider": 200},
    ("get", "vms:vm-edit"): OWN,
    ("get", "vms:vm-settings"): SEE,
    ("get", "updates:settings-change"): OWN,
    ("get", "updates:vm-overview"): SEE,
    ("get", "updates:activity"): SEE,
    ("get", "updates:remove"): OWN,
    ("get", "updates:blade"): SEE,
    ("post", "updates:assess"): redirecting(OPERATE),
    ("get", "updates:install"): OPERATE,
    ("get", "updates:rollback"): OPERATE,
    ("get", "updates:restart"): OPERATE,
    ("post", "updates:restart"): empty(OPERATE),
    ("post", "updates:lift"): redirecting(OPERATE),
    ("post", "updates:settings-apply"): redirecting(OWN),
    ("post", "updates:settings-accept"): redirecting(OWN),
    ("get", "updates:operation"): SEE,
    ("post", "updates:cancel"): redirecting(OPERATE),
    ("get", "updates:bulk-create"): SIGNED_IN,
    # names no operation; whose machines they are is asked there (tests/updates/test_review.py)
    ("get", "updates:bulk-retry"): empty(SIGNED_IN),
    ("post", "updates:bulk-retry"): empty(SIGNED_IN),
    # a request belongs to who made it, and to Owners of everything (tests/updates/test_selection.py)
    ("get", "updates:bulk"): dict.fromkeys(WHO, 404) | {"anonymous": 302, "operator": 200, "chief": 200, "staff": 200},
    ("post", "updates:bulk-cancel"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 302, "chief": 302, "staff": 302},
    ("get", "vms:vm-export"): SIGNED_IN,
    ("get", "updates:rollouts"): SIGNED_IN,
    # a rollout belongs to who made it, and to Owners of everything (tests/updates/test_automation.py)
    ("get", "updates:rollout"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 200, "chief": 200, "staff": 200},
    ("post", "updates:rollout-move"): dict.fromkeys(WHO, 404)
    | {"anonymous": 302, "operator": 302, "chief": 302, "staff": 302},
    ("get", "updates:maintenances"): IMPORT,
    ("get", "updates:maintenance-create"): IMPORT,
    ("get", "updates:maintenance-attach"): IMPORT,
    ("get", "updates:maintenance"): IMPORT,
    ("get", "updates:maintenance-edit"): IMPORT,
    ("post", "updates:maintenance-remove"): redirecting(IMPORT),
    # a freeze of the whole fleet concerns everybody, one of some machines those who see them (tests/updates/test_freeze_pages.py)
    ("get", "updates:freezes"): SIGNED_IN,
    ("get", "updates:freeze"): SIGNED_IN,
    ("get", "updates:freeze-create"): IMPORT,
    ("get", "updates:freeze-edit"): IMPORT,
    ("get", "updates:exception-create"): IMPORT,
    ("post", "updates:freeze-end"): redirecting(IMPORT),
    ("post", "updates:exception-end"): redirecting(IMPORT),
    ("get", "updates:connections"): IMPORT,
    ("get", "updates:connection-create"): IMPORT,
    ("get", "updates:connection"): IMPORT,
    ("post", "updates:connection-pause"): IMPORT | {"chief": 422, "staff": 422},
    ("post", "updates:connection-test"): IMPORT,
    ("post", "updates:connection-misfortune"): IMPORT | {"chief": 422, "staff": 422},
    ("get", "updates:calendar"): SIGNED_IN,
    ("get", "updates:calendar-sample"): SIGNED_IN,
    # everybody sees the updates of their own machines, and the catalogue (tests/updates/test_pending.py)
    ("get", "updates:pending"): SIGNED_IN,
    ("get", "updates:pending-export"): SIGNED_IN,
    ("get", "updates:kb"): SIGNED_IN,
    ("get", "updates:decisions"): SIGNED_IN,
    # everybody sees the operations of the machines that he may see (tests/updates/test_history.py)
    ("get", "updates:history"): SIGNED_IN,
    ("get", "updates:history-runs"): SIGNED_IN,
    ("get", "updates:history-export"): SIGNED_IN,
    ("get", "updates:history-codes"): SIGNED_IN,
    # everybody gets a report on the machines that he may see (tests/updates/test_report.py)
    ("get", "updates:report"): SIGNED_IN,
    ("get", "updates:report-machines"): SIGNED_IN,
    ("get", "updates:report-export"): SIGNED_IN,
    # a decision holds for every machine: Patch operators of everything, with an answer (tests/updates/test_decisions.py)
    ("post", "updates:decisions"): empty(IMPORT),
    ("post", "set-preferences"): dict.fromkeys(WHO, 302),
    # what takes a form, sent with nothing but its button: who may send it is told what is missing
    ("post", "vms:vm-create"): empty(IMPORT | {"owner": 200, "outsider": 200}),
    ("post", "vms:vm-import"): empty(IMPORT),
    ("post", "vms:vm-edit"): empty(OWN),
    ("post", "updates:settings-change"): empty(OWN),
    ("post", "updates:remove"): empty(OWN),
    ("post", "updates:install"): empty(OPERATE),
    ("post", "updates:bulk-create"): empty(SIGNED_IN),
    ("post", "updates:rollback"): empty(OPERATE),
    ("post", "updates:maintenance-create"): empty(IMPORT),
    ("post", "updates:freeze-create"): empty(IMPORT),
    ("post", "updates:freeze-edit"): empty(IMPORT),
    ("post", "updates:exception-create"): empty(IMPORT),
    ("post", "updates:maintenance-edit"): empty(IMPORT),
    ("post", "updates:maintenance-attach"): empty(IMPORT),
    ("post", "updates:maintenance"): redirecting(IMPORT),
    ("post", "updates:connection-create"): empty(IMPORT),
    ("post", "updates:connection"): empty(IMPORT),
    # programs come with tokens, and people without: 401 (tests/arm_api/test_table.py); what clients look up first is open
    **{("get", f"arm:{top}"): dict.fromkeys(WHO, 401) for top in ("subscriptions", "tenants", "providers")},
    **{("get", f"arm:{name}"): dict.fromkeys(WHO, 200) for name in ("endpoints", "instances", "discovery", "keys")},
    ("get", "arm:identity"): dict.fromkeys(WHO, 401),
    ("post", "arm:token"): dict.fromkeys(WHO, 400),
    ("get", "arm:principals"): IMPORT,
    ("get", "arm:principal-create"): IMPORT,
    ("post", "arm:principal-create"): empty(IMPORT),
    ("get", "arm:principal"): IMPORT,
    ("post", "arm:secret-make"): empty(IMPORT),
    ("post", "arm:secret-revoke"): redirecting(IMPORT),
    ("post", "arm:principal-switch"): redirecting(IMPORT),
    # everybody sees what happened where they may look (tests/people/test_activity.py)
    ("get", "activity"): SIGNED_IN,
    ("get", "activity-export"): SIGNED_IN,
    ("get", "waiting"): SIGNED_IN,
    # only who made a request has seen to it
    ("post", "waiting-seen"): dict.fromkeys(WHO, 404) | {"anonymous": 302, "operator": 302},
    # who owns something gives roles there; the reader sees the own role, and cannot take it (tests/people/test_access.py)
    ("get", "access"): SIGNED_IN,
    ("get", "access-check"): SIGNED_IN,
    ("get", "access-give"): GIVE,
    ("post", "access-give"): empty(GIVE),
    ("get", "access-take"): TAKE,
    ("post", "access-take"): redirecting(TAKE),
    ("get", "account"): SIGNED_IN,
    ("post", "sessions-end"): dict.fromkeys(WHO, 302),
    ("post", "set-mail"): dict.fromkeys(WHO, 302),
    ("get", "account_login"): dict.fromkeys(WHO, 302) | {"anonymous": 200},
    ("get", "account_logout"): SIGNED_IN,
    # accounts of these tests have no usable password: they are led to setting one
    ("get", "account_change_password"): dict.fromkeys(WHO, 302),
    ("get", "account_set_password"): SIGNED_IN,
}


BUTTONS = {
    "arm:principal-create": {"create": "create"},
    "arm:secret-make": {"days": ""},
    "vms:vm-create": {"create": "create"},
    "vms:vm-edit": {"save": "save"},
    "updates:settings-change": {"go": "apply"},
    "updates:remove": {"name": ""},
    "updates:install": {"step": "review", "go": "install"},
    "updates:bulk-create": {"kind": "installation", "go": "start"},
    "updates:maintenance-create": {"go": "save"},
    "updates:freeze-create": {"go": "save"},
    "updates:freeze-edit": {"go": "save"},
    "updates:exception-create": {"go": "save"},
    "updates:maintenance-edit": {"go": "save"},
    "updates:maintenance-attach": {"go": "save"},
    "updates:connection-create": {"name": ""},
    "updates:connection": {"name": ""},
    "updates:rollback": {"go": "start"},
    "updates:restart": {"go": "start"},
}
# They know no session and no form: what they take and refuse is in tests/arm_api.
PROGRAMS = {
    *("arm:subscriptions", "arm:tenants", "arm:providers", "arm:endpoints", "arm:instances", "arm:discovery"),
    *("arm:keys", "arm:identity", "arm:token"),
}
LIBRARY = {"account_login", "account_logout", "account_change_password", "account_set_password"}


def maintenance() -> MaintenanceConfiguration:
    return MaintenanceConfiguration.objects.get_or_create(
        name="m",
        defaults={
            "starts_on": date(2026, 1, 1),
            "starts_at": time(22),
            "time_zone": "UTC",
            "recur_every": "Day",
            "plan": plan_to_json(InstallationPlan(classifications=frozenset({Classification.SECURITY}))),
        },
    )[0]


def freeze() -> Freeze:
    now = timezone.now()
    times = {"begins_at": now + timedelta(days=30), "ends_at": now + timedelta(days=40)}
    return Freeze.objects.get_or_create(name="f", is_for_all=True, defaults=times | {"time_zone": "UTC"})[0]


def address_of_program(name: str) -> str:
    """An address of the door for programs, or of a page about one."""
    if name in {"arm:token", "arm:discovery", "arm:keys"}:
        return reverse(name, args=[tenant_id()])
    if name in {"arm:principal", "arm:secret-make", "arm:secret-revoke", "arm:principal-switch"}:
        principal = ServicePrincipal.objects.filter(name="p").first() or create_principal(name="p")
        secret = principal.secrets.first() or add_secret(principal=principal, days=1)[0]
        return reverse(name, args=[principal.pk, secret.pk] if name == "arm:secret-revoke" else [principal.pk])
    return reverse(name)


def address(name: str, vm: VirtualMachine, operation: Operation) -> str:
    if name.startswith("arm:"):
        return address_of_program(name)
    if name in {"updates:bulk", "updates:bulk-cancel", "waiting-seen"}:
        row, is_new = BulkRequest.objects.get_or_create(
            kind="assessment", requested_by=User.objects.filter(username="operator").first()
        )
        if is_new:
            BulkBlock.objects.create(request=row, number=0, vm_ids=[vm.pk])
        return reverse(name, args=[row.pk])
    if name in {"updates:rollout", "updates:rollout-move"}:
        rollout, _ = Rollout.objects.get_or_create(
            name="r",
            source="on_demand",
            plan={},
            created_by=User.objects.filter(username="operator").first(),
            defaults={"created_at": timezone.now()},
        )
        RolloutMember.objects.get_or_create(rollout=rollout, vm=vm, wave=0)
        return reverse(name, args=[rollout.pk])
    if name in {"updates:maintenance", "updates:maintenance-edit", "updates:maintenance-remove"}:
        return reverse(name, args=[maintenance().pk])
    if name in {"updates:freeze", "updates:freeze-edit", "updates:freeze-end", "updates:exception-create"}:
        return reverse(name, args=[freeze().pk])
    if name == "updates:exception-end":
        held = freeze()
        exception, _ = FreezeException.objects.get_or_create(freeze=held, defaults={"expires_at": held.ends_at})
        return reverse(name, args=[held.pk, exception.pk])
    if name in {"updates:operation", "updates:cancel"}:
        return reverse(name, args=[operation.pk])
    if name in {
        "updates:connections",
        "updates:connection-create",
        "updates:calendar",
        "updates:calendar-sample",
        "updates:pending",
        "updates:pending-export",
        "updates:decisions",
        "updates:history",
        "updates:history-runs",
        "updates:history-export",
        "updates:history-codes",
        "updates:report",
        "updates:report-machines",
        "updates:report-export",
        "updates:ended",
        "updates:bulk-create",
        "updates:bulk-retry",
        "updates:rollouts",
        "updates:maintenances",
        "updates:maintenance-create",
        "updates:freezes",
        "updates:freeze-create",
    }:
        return reverse(name)
    if name.startswith("updates:connection"):
        return reverse(name, args=[vm.connection_id])
    if name in {"vms:view", "vms:view-edit", "vms:view-replace", "vms:view-remove"}:
        chief = User.objects.filter(username="chief").first() or User.objects.create(username="chief")
        return reverse(name, args=[SavedView.objects.get_or_create(owner=chief, name="v", is_shared=True)[0].pk])
    if name == "access-take":
        reader = User.objects.filter(username="reader").first() or User.objects.create(username="reader")
        place: dict[str, Any] = {"scope": "resource_group", "resource_group": vm.resource_group}
        return reverse(name, args=[RoleAssignment.objects.get_or_create(user=reader, role="reader", **place)[0].pk])
    if name == "vms:inventory-sync":
        return reverse(name, args=[vm.connection_id])
    if name.startswith("vms:import-"):
        return reverse(name, args=[ImportJob.objects.get_or_create(file_name="x", connection=vm.connection)[0].pk])
    if name == "updates:kb":
        return reverse(
            name, args=[Patch.objects.get_or_create(kb_number="5087424", classification="Security")[0].kb_number]
        )
    if name in {"updates:settings-change", "updates:maintenance-attach"}:
        return f"{reverse(name)}?vm={vm.pk}"
    if name.startswith("updates:") or name in {"vms:vm-settings", "vms:vm-edit"}:
        return reverse(name, args=[vm.pk])
    return reverse(name)


def a_row_of(model: str) -> Any:
    label, _, name = model.partition("_")
    return apps.get_model(label, name).objects.order_by("pk").first()


def admin_address(door: str, pk: object = None) -> str:
    """The address of an admin page, about the first row of its model unless told."""
    model, _, action = door.removeprefix("admin:").rpartition("_")
    if door == "admin:app_list":
        return reverse(door, args=["vms"])
    if door == "admin:view_on_site":
        return reverse(door, args=[1, 1])
    if door == "admin:auth_user_password_change":
        model, action = "auth_user", "change"
    if model in ADMIN_MODELS and action in {"change", "history", "delete"}:
        return reverse(door, args=[pk or a_row_of(model).pk])
    return reverse(door)
