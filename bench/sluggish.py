"""Machines that take their time to be started, behind a connector of the real pace; what reaches them is written down.

The ledger is the machines' own: a line when a call begins, one when the machine has received the start (half way through
the call), one when its answer leaves. A process that is killed in between leaves the earlier lines.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from connectors.catalogue import Catalogue
from connectors.configuration import Bounds
from connectors.protocol import (
    AssessmentResult,
    Capability,
    ConnectorError,
    DiscoveredPage,
    InstallationResult,
    Observation,
    ObserveRequest,
    Progress,
    StartChunk,
    Started,
    StartRequest,
    Traits,
)
from patching.terms import OperationKind, RebootStatus, RunStatus

KIND = "sluggish"
RUNS_FOR = 60.0  # seconds that an installation takes on the machine


@dataclass(frozen=True, slots=True)
class SluggishConfiguration:
    """`name`: what the ledger calls the connection. `start_seconds`: what one start takes. `capability`: what helps to recover one; empty: nothing does.

    `is_endless`: its installations go on for an hour, so that nothing but starts is measured.
    """

    name: str
    start_seconds: Annotated[float, Bounds(least=0.0)] = 0.1
    capability: str = ""
    is_endless: bool = False


class Sluggish:
    """Starts machines one by one, and no more than one at a time in each claim."""

    def __init__(self, conf: SluggishConfiguration, ledger: Path) -> None:
        self.conf, self.ledger = conf, ledger
        self.capabilities = frozenset({Capability(conf.capability)} if conf.capability else ())
        # Its pace is not declared: a real connection's is not known either before it was measured.
        self.traits = Traits()

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:  # noqa: ARG002 (it lists none)
        """No inventory."""
        return DiscoveredPage(())

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:  # noqa: ARG002 (requests end by themselves)
        """One after the other, each for as long as a start takes."""
        for request in requests:
            self._note(request, "begun")
            time.sleep(self.conf.start_seconds / 2)
            self._note(request, "received")
            time.sleep(self.conf.start_seconds / 2)
            self._note(request, "answered")
            yield [(request.request_id, self._started(request))]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | None]:  # noqa: ARG002
        """What the machines have received, by their ledger."""
        text = self.ledger.read_text()
        received = {deed["request"] for line in text.splitlines() if (deed := json.loads(line))["what"] == "received"}
        return [self._started(request) if str(request.request_id) in received else None for request in requests]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation]:
        """An installation runs for a minute, anything else is over at once."""
        return [self._look(request, now) for request in requests]

    def _started(self, request: StartRequest) -> Started:
        if request.kind is OperationKind.ASSESSMENT:
            return Started("h", look_again_after=0.0)
        return Started("h", look_again_after=3_600.0 if self.conf.is_endless else RUNS_FOR)

    def _look(self, request: ObserveRequest, now: datetime) -> Observation:
        found = AssessmentResult(status=RunStatus.SUCCEEDED, available=(), is_reboot_pending=False)
        if request.kind is OperationKind.ASSESSMENT:
            return Observation(assessment=found)
        left = RUNS_FOR - (now - request.started_at).total_seconds()
        if left > 0:
            return Observation(progress=Progress("installing"), look_again_after=max(1.0, left))
        done = InstallationResult(
            status=RunStatus.SUCCEEDED,
            reboot_status=RebootStatus.NOT_NEEDED,
            is_maintenance_window_exceeded=False,
            patches=(),
            final_assessment=found,
        )
        return Observation(installation=done)

    def _note(self, request: StartRequest, what: str) -> None:
        deed: dict[str, object] = {
            "request": str(request.request_id),
            "kind": request.kind,
            "what": what,
            "at": time.time(),
        }
        deed["connection"] = self.conf.name
        with self.ledger.open("ab", buffering=0) as file:
            file.write((json.dumps(deed | {"pid": os.getpid()}) + "\n").encode())


def make(conf: SluggishConfiguration, catalogue: Catalogue) -> Sluggish:  # noqa: ARG001 (it offers nothing)
    """The machines of this configuration with the ledger of the campaign."""
    return Sluggish(conf, Path(os.environ["BENCH_STARTS"]))
