"""What somebody does in Azure so that a connection works: the role, and the lines of az that make the account. No SDK is imported."""

from __future__ import annotations

import json

from connectors.azure.configuration import AzureConfiguration, Credential
from connectors.azure.permissions import ROLE, role
from connectors.permissions import Guide

FILE = "hotpatch-portal-role.json"
ACCOUNT = "hotpatch-portal"
EXAMPLE = "00000000-0000-0000-0000-000000000000"
_IDENTITY = "IDENTITY"  # the principal id of an identity that is there already
_HAVE_AN_IDENTITY = frozenset({Credential.MANAGED_IDENTITY, Credential.WORKLOAD_IDENTITY})
_ITS_OWN = "AzureCloud"  # where az is unless it is told otherwise


def guide(conf: AzureConfiguration) -> Guide:
    """The role on the subscriptions that are read, and an account that has it, for the way in which the connection signs in."""
    subscriptions = conf.subscription_ids or (EXAMPLE,)
    scopes = [f"/subscriptions/{one}" for one in subscriptions]
    lines = [f"az cloud set --name {conf.cloud}"] if conf.cloud not in {"", _ITS_OWN} else []
    lines.append(f"az role definition create --role-definition @{FILE}")
    if conf.credential in _HAVE_AN_IDENTITY:
        assign = f'az role assignment create --assignee-object-id {_IDENTITY} --assignee-principal-type ServicePrincipal --role "{ROLE}"'
        lines += [f"{assign} --scope {scope}" for scope in scopes]
    else:
        key = " --create-cert" if conf.credential is Credential.CERTIFICATE else ""
        lines.append(f'az ad sp create-for-rbac --name {ACCOUNT}{key} --role "{ROLE}" --scopes {" ".join(scopes)}')
    return Guide(FILE, json.dumps(role(subscriptions), indent=2), tuple(lines), bool(conf.subscription_ids))
