"""What the portal may do in Azure and nothing else: a role with least privileges, and what an account lacks of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from connectors.azure import inventory
from connectors.azure.answers import Answer, NoAnswer, find, objects_of
from connectors.azure.configuration import AzureConfiguration
from connectors.azure.errors import refusal, silence
from connectors.permissions import Missing
from connectors.protocol import ConnectorError

if TYPE_CHECKING:  # it imports the SDKs, and pages show the role
    from connectors.azure.link import Ask, Link

ROLE = "Hotpatch Portal operator"
_ARC = "Microsoft.HybridCompute/machines"
READS = (
    "Microsoft.Resources/subscriptions/read",
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachines/patchAssessmentResults/read",
    "Microsoft.Compute/virtualMachines/patchAssessmentResults/softwarePatches/read",
    "Microsoft.Compute/virtualMachines/patchInstallationResults/read",
    "Microsoft.Compute/virtualMachines/patchInstallationResults/softwarePatches/read",
    "Microsoft.Compute/locations/operations/read",
    f"{_ARC}/read",
    f"{_ARC}/patchAssessmentResults/read",
    f"{_ARC}/patchAssessmentResults/softwarePatches/read",
    f"{_ARC}/patchInstallationResults/read",
    f"{_ARC}/patchInstallationResults/softwarePatches/read",
    f"{_ARC}/licenseProfiles/read",
    "Microsoft.HybridCompute/locations/operationstatus/read",
    "Microsoft.HybridCompute/locations/operationresults/read",
)
ACTS = (
    "Microsoft.Compute/virtualMachines/assessPatches/action",
    "Microsoft.Compute/virtualMachines/installPatches/action",
    f"{_ARC}/assessPatches/action",
    f"{_ARC}/installPatches/action",
)
# The licence profile is where a machine outside of Azure is enrolled for hotpatches.
SETTINGS = ("Microsoft.Compute/virtualMachines/write", f"{_ARC}/write", f"{_ARC}/licenseProfiles/write")
# What a test asks for: without one of these something that the pages offer fails. The results of runs are read by Resource
# Graph, which shows an account what it may read and says nothing of the rest.
NEEDED = (
    *("Microsoft.Compute/virtualMachines/read", "Microsoft.Compute/locations/operations/read", f"{_ARC}/read"),
    f"{_ARC}/licenseProfiles/read",
    *(
        "Microsoft.HybridCompute/locations/operationstatus/read",
        "Microsoft.HybridCompute/locations/operationresults/read",
    ),
    *ACTS,
    *SETTINGS,
)
MOST_SUBSCRIPTIONS = 100  # that one test looks at
_VERSION = "2022-04-01"


def role(subscriptions: Iterable[str]) -> dict[str, Any]:
    """The definition of the role, as `az role definition create` takes it."""
    return {
        "Name": ROLE,
        "IsCustom": True,
        "Description": "Assess, install and configure updates of virtual machines and Arc machines. Nothing else.",
        "Actions": [*READS, *ACTS, *SETTINGS],
        "NotActions": [],
        "AssignableScopes": [f"/subscriptions/{one}" for one in subscriptions],
    }


def lacking(granted: Sequence[dict[str, Any]], needed: Iterable[str] = NEEDED) -> list[str]:
    """Those of the needed actions that no grant allows. A grant is what ARM tells of one role: actions and notActions."""
    return [action for action in needed if not any(_allows(grant, action) for grant in granted)]


def _allows(grant: dict[str, Any], action: str) -> bool:
    return _names(find(grant, "actions"), action) and not _names(find(grant, "notActions"), action)


def _names(patterns: object, action: str) -> bool:
    told = [one for one in patterns if isinstance(one, str)] if isinstance(patterns, list) else []
    return any(
        re.fullmatch(".*".join(map(re.escape, one.split("*"))), action, re.IGNORECASE | re.DOTALL) for one in told
    )


def missing_permissions(link: Link, conf: AzureConfiguration, *, deadline: float) -> list[Missing] | ConnectorError:
    """What the account lacks in the subscriptions that are read. Where ARM does not tell its grants nothing is claimed."""
    subscriptions = inventory.subscriptions_of(link, conf, deadline)
    if isinstance(subscriptions, ConnectorError):
        return subscriptions
    asked = list(subscriptions)[:MOST_SUBSCRIPTIONS]
    answers = link.each([partial(grants, one) for one in asked], deadline=deadline)
    found: list[Missing] = []
    for subscription, answer in zip(asked, answers, strict=True):
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status == 200:
            found += [Missing(subscription, action) for action in lacking(list(objects_of(answer.json, "value")))]
        elif answer.status not in {400, 403, 404}:
            return refusal(answer)
    return found


def grants(subscription: str, ask: Ask) -> Answer | NoAnswer:
    """What ARM tells of the roles that the account has there."""
    path = f"/subscriptions/{subscription}/providers/Microsoft.Authorization/permissions?api-version={_VERSION}"
    return ask(lambda link: link.get(path))
