"""The two types of machines that Azure Resource Manager knows, and what differs between them in an address."""

from __future__ import annotations

from dataclasses import dataclass

from arm_api import versions


@dataclass(frozen=True, slots=True)
class MachineKind:
    """One resource type. `status_path` and `result_path` are where its operations are followed."""

    provider: str
    plural: str
    versions: tuple[str, ...]
    status_path: str
    result_path: str

    @property
    def type(self) -> str:
        """Its name in Azure: Microsoft.Compute/virtualMachines."""
        return f"{self.provider}/{self.plural}"

    @property
    def follow_paths(self) -> tuple[str, ...]:
        """Where its operations are followed, each once."""
        return tuple(dict.fromkeys((self.status_path, self.result_path)))

    @property
    def mark(self) -> str:
        """What resource ids of this type have in them, in lower case as they are kept."""
        return f"/providers/{self.type}/".lower()


COMPUTE = MachineKind("Microsoft.Compute", "virtualMachines", versions.COMPUTE, "operations", "operations")
ARC = MachineKind("Microsoft.HybridCompute", "machines", versions.HYBRID_COMPUTE, "operationstatus", "operationresults")
KINDS = (COMPUTE, ARC)


def kind_of(arm_id: str) -> MachineKind:
    """The type of the machine with this resource id."""
    return ARC if ARC.mark in arm_id else COMPUTE
