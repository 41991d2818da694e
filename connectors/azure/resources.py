"""Resource ids of machines: which subscription, group and name they say, and what kind of machine it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

_ID = re.compile(
    r"/subscriptions/(?P<subscription>[0-9a-f-]{36})/resourcegroups/(?P<group>[^/?#]{1,90})/providers/"
    r"(?P<type>microsoft\.compute/virtualmachines|microsoft\.hybridcompute/machines)/(?P<name>[^/?#]{1,80})",
    re.IGNORECASE,
)


class Type(StrEnum):
    """What kind of resource a machine is."""

    VIRTUAL_MACHINE = "Microsoft.Compute/virtualMachines"
    ARC_MACHINE = "Microsoft.HybridCompute/machines"


@dataclass(frozen=True, slots=True)
class Resource:
    """A machine by the parts of its id."""

    subscription: str
    group: str
    name: str
    type: Type

    @property
    def path(self) -> str:
        """Its id as an address, without a host."""
        group, name = quote(self.group, safe="()"), quote(self.name, safe="")
        return f"/subscriptions/{self.subscription}/resourceGroups/{group}/providers/{self.type.value}/{name}"


def resource_of(arm_id: str) -> Resource | None:
    """The machine that this id names; None where it names none that can be patched (an instance of a Uniform scale set)."""
    match = _ID.fullmatch(arm_id.strip())
    if match is None:
        return None
    is_arc = "hybridcompute" in match["type"].lower()
    return Resource(
        match["subscription"].lower(),
        match["group"],
        match["name"],
        Type.ARC_MACHINE if is_arc else Type.VIRTUAL_MACHINE,
    )
