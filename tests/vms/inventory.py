"""Rows of an inventory as Azure's tools write them, for tests that change one thing about them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

DATA = Path(__file__).parent / "data"
AZ_SAMPLE = (DATA / "az_vm_list_sample.json").read_bytes()
ARM_SAMPLE = (DATA / "arm_vm_list_sample.json").read_bytes()
AZ_ROW: dict[str, Any] = json.loads(AZ_SAMPLE)[0]
ARM_ROW: dict[str, Any] = json.loads(ARM_SAMPLE)["value"][0]
SCALE_SET = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/RG-WEB/providers/Microsoft.Compute/virtualMachineScaleSets/pool"


def az_row(name: str = "web-001", **changes: object) -> dict[str, Any]:
    """The sample's VM under another name, with some of its top-level keys replaced."""
    row = copy.deepcopy(AZ_ROW)
    row["id"] = row["id"].replace("web-001", name)
    row["name"] = name
    if name != "web-001":
        row["vmId"] = str(uuid5(NAMESPACE_URL, name))
    return row | changes


def edited(path: str, value: object, row: dict[str, Any] = AZ_ROW) -> dict[str, Any]:
    """The row with the value at this dotted path replaced."""
    row = copy.deepcopy(row)
    node = row
    *parents, last = path.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    return row
