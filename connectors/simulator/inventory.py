"""The machines that a simulator lists by itself: as many as its configuration says, the same ones every time."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from connectors.protocol import DiscoveredPage, DiscoveredVm

PAGE = 1_000  # as many as Azure gives at most
MACHINES_PER_GROUP, GROUPS_PER_SUBSCRIPTION = 500, 100
LOCATIONS = ("japaneast", "japanwest", "westeurope", "eastus2")
# Azure Edition with hotpatch, and one image in ten that cannot have it.
SKUS = (
    *("2022-datacenter-azure-edition-core", "2025-datacenter-azure-edition", "2022-datacenter-azure-edition-hotpatch"),
    *("2025-datacenter-azure-edition-core", "2022-datacenter-azure-edition-core-smalldisk"),
)
WITHOUT_HOTPATCH = "2019-datacenter"


def discovered(*, seed: int, size: int, cursor: str) -> DiscoveredPage:
    """The page behind this cursor of an inventory of this size. Raises ValueError if the simulator did not make the cursor."""
    first = int(cursor) if cursor else 0
    last = min(size, first + PAGE)
    machines = [DiscoveredVm(document(seed, number)) for number in range(first, last)]
    return DiscoveredPage(machines, str(last) if last < size else "")


def document(seed: int, number: int) -> dict[str, Any]:
    """The machine of this number (from 0), as Azure Resource Manager tells it."""
    group = number // MACHINES_PER_GROUP
    subscription = UUID(int=uuid5(NAMESPACE_URL, f"simulator/{seed}/{group // GROUPS_PER_SUBSCRIPTION}").int)
    name = f"sim{seed}-{number:06d}"
    is_able = number % 10 != 9
    sku = SKUS[number % len(SKUS)] if is_able else WITHOUT_HOTPATCH
    return {
        "id": (
            f"/subscriptions/{subscription}/resourceGroups/sim{seed}-rg-{group:04d}"
            f"/providers/Microsoft.Compute/virtualMachines/{name}"
        ),
        "name": name,
        "type": "Microsoft.Compute/virtualMachines",
        "location": LOCATIONS[group % len(LOCATIONS)],
        "tags": {"env": ("prod", "test", "dev")[number % 3], "simulated": "true"},
        "properties": {
            "vmId": str(uuid5(NAMESPACE_URL, f"simulator/{seed}/machine/{number}")),
            "hardwareProfile": {"vmSize": "Standard_D4s_v5"},
            "provisioningState": "Succeeded",
            "storageProfile": {
                "imageReference": {
                    "publisher": "MicrosoftWindowsServer",
                    "offer": "WindowsServer",
                    "sku": sku,
                    "version": "latest",
                },
                "osDisk": {"osType": "Windows"},
            },
            "osProfile": {
                "computerName": name[:15],
                "windowsConfiguration": {
                    "provisionVMAgent": True,
                    "enableAutomaticUpdates": True,
                    "patchSettings": {
                        "patchMode": "AutomaticByPlatform",
                        "assessmentMode": "AutomaticByPlatform",
                        "enableHotpatching": is_able,
                    },
                },
            },
            "instanceView": {"statuses": [{"code": "PowerState/running", "displayStatus": "VM running"}]},
        },
    }
