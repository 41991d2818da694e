"""What a simulator is made from, what it can do, and how it is to be used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from connectors.configuration import Bounds
from connectors.protocol import Capability, Orchestrator, Traits
from patching.recurrence import FIRST_DAY, LAST_DAY

CAPABILITIES = frozenset(
    {
        Capability.IDEMPOTENT_START,
        Capability.FIND_BY_REQUEST,
        Capability.INSTALLED_UPDATES,
        Capability.FINAL_ASSESSMENT,
        Capability.UNINSTALL,
        Capability.SETTINGS,
        Capability.RESTART,
    }
)
TRAITS = Traits(is_simulated=True, orchestrator=Orchestrator.PORTAL)


@dataclass(frozen=True, slots=True)
class SimulatorConfiguration:
    """`catalogue_date`: what was released by this day is on offer; None: today.

    `clock_factor`: simulated seconds that pass in a real one. `seed`: what nobody knows of a machine follows from it.
    `inventory_size`: how many machines it lists by itself.
    """

    catalogue_date: Annotated[date | None, Bounds(FIRST_DAY, LAST_DAY)] = None
    clock_factor: Annotated[float, Bounds(least=0.001)] = 60.0
    seed: Annotated[int, Bounds(0, 2**31 - 1)] = 1
    inventory_size: Annotated[int, Bounds(0, 1_000_000)] = 0
