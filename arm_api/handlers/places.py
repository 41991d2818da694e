"""Tenants, subscriptions, resource groups, and the list of resources."""

from __future__ import annotations

import re
from typing import Any

from arm_api.calls import Answer, Call
from arm_api.documents.machines import Document, id_of
from arm_api.errors import ArmCode, ArmError, invalid
from arm_api.kinds import ARC, KINDS, kind_of
from arm_api.pages import listed, page_of
from arm_api.selectors import group_of, subscription_of, visible_groups, visible_subscriptions
from arm_api.tokens import tenant_id
from vms.choices import Role, Scope
from vms.models import ResourceGroup, Subscription, VirtualMachine, VirtualMachineQuerySet


def tenants(_call: Call) -> Answer:
    """The one tenant that this portal is."""
    tenant = str(tenant_id())
    names = {"displayName": "Hotpatch Portal", "defaultDomain": "hotpatch-portal", "tenantType": "AAD"}
    row = {"id": f"/tenants/{tenant}", "tenantId": tenant, "tenantCategory": "Home", **names}
    return Answer(listed([row], "", is_link_required=True))


def _subscription(row: Subscription) -> Document:
    return {
        "id": f"/subscriptions/{row.subscription_id}",
        "subscriptionId": str(row.subscription_id),
        "tenantId": str(tenant_id()),
        "displayName": row.name,
        "state": "Enabled",
        "subscriptionPolicies": {"locationPlacementId": "", "quotaId": "", "spendingLimit": "Off"},
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    }


def subscriptions(call: Call) -> Answer:
    """Those in which the caller may see something."""
    rows, next_link = page_of(call, visible_subscriptions(call.caller.grants))
    return Answer(listed([_subscription(row) for row in rows], next_link, is_link_required=True))


def subscription(call: Call) -> Answer:
    """One of them."""
    return Answer(_subscription(subscription_of(call)))


def _group(row: ResourceGroup) -> Document:
    return {
        "id": f"/subscriptions/{row.subscription.subscription_id}/resourceGroups/{row.name}",
        "name": row.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": "global",
        "tags": {},
        "properties": {"provisioningState": "Succeeded"},
    }


def groups(call: Call) -> Answer:
    """The groups of a subscription in which the caller may see something."""
    if call.option("$filter"):
        raise invalid("Filters of resource groups are not supported.", "$filter")
    rows, next_link = page_of(call, visible_groups(call.caller.grants, subscription_of(call)))
    return Answer(listed([_group(row) for row in rows], next_link))


def group(call: Call) -> Answer:
    """One of them."""
    return Answer(_group(group_of(call)))


_READ = ("Microsoft.Resources/subscriptions/read", "Microsoft.Resources/subscriptions/resourceGroups/read")


def permissions(call: Call) -> Answer:
    """What the caller may do everywhere in a subscription, in Azure's words; nothing where its roles are on parts of it."""
    here = subscription_of(call)
    held = {
        grant.role
        for grant in call.caller.grants.rows
        if grant.scope is Scope.EVERYTHING or grant.subscription_id == here.pk
    }
    roles = {role for role in Role if held & set(role.and_stronger)}
    actions = list(_READ) if roles else []
    for kind in KINDS:
        polls = [f"{kind.provider}/locations/{path}/read" for path in kind.follow_paths]
        actions += [f"{kind.type}/read", *polls] if Role.READER in roles else []
        patches = [f"{kind.type}/assessPatches/action", f"{kind.type}/installPatches/action"]
        actions += patches if Role.OPERATOR in roles else []
        actions += [f"{kind.type}/write"] if Role.OWNER in roles else []
    licenses = f"{ARC.type}/licenseProfiles"
    actions += [f"{licenses}/read"] if Role.READER in roles else []
    actions += [f"{licenses}/write", f"{licenses}/delete"] if Role.OWNER in roles else []
    return Answer({"value": [{"actions": actions, "notActions": [], "dataActions": [], "notDataActions": []}]})


_BY_TYPE = re.compile(r"resourceType eq '([\w./]+)'", re.IGNORECASE)


def resources(call: Call) -> Answer:
    """The machines of a subscription or a group, of both types, as ARM lists resources of any type."""
    rows = VirtualMachine.objects.granted_by(call.caller.grants).filter(gone_at__isnull=True)
    if "group" in call.place:
        rows = rows.filter(resource_group=group_of(call))
    else:
        rows = rows.filter(resource_group__subscription=subscription_of(call))
    rows = _of_type(call, rows).select_related("resource_group__subscription")
    page, next_link = page_of(call, rows)
    return Answer(listed([_resource(vm) for vm in page], next_link))


def _of_type(call: Call, rows: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
    asked = call.option("$filter")
    if not asked:
        return rows
    match = _BY_TYPE.fullmatch(asked.strip())
    if match is None:
        raise ArmError(ArmCode.BAD_REQUEST, "Only the filter resourceType eq '<type>' is supported.", target="$filter")
    kind = next((kind for kind in KINDS if kind.type.lower() == match[1].lower()), None)
    return rows.filter(arm_id__contains=kind.mark) if kind else rows.none()


def _resource(vm: VirtualMachine) -> dict[str, Any]:
    kind = kind_of(vm.arm_id)
    return {"id": id_of(vm, kind), "name": vm.name, "type": kind.type, "location": vm.location, "tags": vm.tags}
