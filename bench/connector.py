"""A simulator whose machines write down what they received and did, behind a connector that misbehaves now and then."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.catalogue import Catalogue
from connectors.protocol import Capability, ConnectorError, ObserveRequest, StartRequest
from connectors.simulator import Simulator, SimulatorConfiguration
from connectors.simulator import make as make_simulator
from connectors.simulator.machines import line_of
from patching.releases import as_of
from patching.terms import InstallationState, OperationKind

# How often a call goes wrong as a whole, and how often one of its answers does.
CALLS, ANSWERS = 0.03, 0.008
HELPED = frozenset({Capability.IDEMPOTENT_START, Capability.FIND_BY_REQUEST})


class Troubled:
    """Passes everything on to the simulator. What arrives is written down first; then the answer may go wrong."""

    def __init__(self, inner: Simulator) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities
        self.ledger = Path(os.environ["BENCH_LEDGER"])

    def start(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """Starts always arrive; their answers may not. Where machines can tell, some starts arrive twice."""
        answers = self._received(requests, now)
        if Capability.IDEMPOTENT_START in self.capabilities and self._befalls(CALLS):
            self._note("duplicate")
            answers = self._received(requests, now)
        return self._troubled(answers)

    def observe(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """Looks may fail as a whole or one by one."""
        return self._troubled(self.inner.observe(requests, now=now))

    def find(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """As the simulator."""
        return self.inner.find(requests, now=now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    # --- what the machines do

    def _received(self, requests: Sequence[StartRequest], now: datetime) -> Sequence[Any]:
        answers = self.inner.start(requests, now=now)
        lines = [
            json.dumps(self._deed(request, now))
            for request, answer in zip(requests, answers, strict=True)
            if not (isinstance(answer, ConnectorError) and answer.nothing_was_sent)
        ]
        if lines:
            with self.ledger.open("ab", buffering=0) as file:
                file.write(("\n".join(lines) + "\n").encode())
        return answers

    def _deed(self, request: StartRequest, now: datetime) -> dict[str, Any]:
        """What the machine does with this start: which patches it installs, and how often it reboots."""
        deed: dict[str, Any] = {"request": str(request.request_id), "vm": request.vm.vm_id, "kind": request.kind}
        line = line_of(request.vm)
        if request.kind is OperationKind.INSTALLATION and request.plan is not None and line is not None:
            moment = as_of(self.inner.catalogue_date, now)
            look = ObserveRequest(request.request_id, request.kind, request.vm, "", now, request.plan)
            run = self.inner._run(look, request.plan, self.inner.machines.machine(request.vm, line, moment), moment)
            done = [o.patch.key for o in run.result.patches if o.state is InstallationState.INSTALLED]
            deed |= {"patches": sorted(done), "reboots": sum(s.step == "rebooting" for s in run.stretches)}
        return deed

    # --- what goes wrong

    def _befalls(self, share: float) -> bool:
        return random.random() < share and not self.ledger.with_suffix(".calm").exists()

    def _note(self, kind: str) -> None:
        with self.ledger.with_suffix(".trouble").open("a") as file:
            file.write(f"{kind}\n")

    def _troubled(self, answers: Sequence[Any]) -> Sequence[Any]:
        if self._befalls(CALLS):
            self._note("exception")
            raise RuntimeError("the connector fell over")
        if self._befalls(CALLS):
            self._note("slow answer")
            time.sleep(2)
        if self._befalls(CALLS):
            self._note("duplicate")
            return [*answers, *answers]
        return [self._spoilt(answer) for answer in answers]

    def _spoilt(self, answer: Any) -> Any:
        spoils: dict[str, Callable[[], Any]] = {
            "time-out": lambda: ConnectorError("connector.timeout", "\x00 no answer", is_retryable=True),
            "garbage": lambda: random.choice([None, "\x00<html>", {"status": "?"}, object()]),
        }
        for kind, spoil in spoils.items():
            if self._befalls(ANSWERS):
                self._note(kind)
                return spoil()
        return answer


def make(conf: SimulatorConfiguration, catalogue: Catalogue) -> Troubled:
    """The simulator of this configuration with the ledger of the campaign."""
    inner = make_simulator(conf, catalogue)
    if os.environ.get("BENCH_UNHELPFUL"):
        inner = replace(inner, capabilities=inner.capabilities - HELPED)
    return Troubled(inner)
