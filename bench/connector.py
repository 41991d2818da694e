"""A simulator whose machines write down every start they receive, behind a connector that misbehaves now and then."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.catalogue import Catalogue
from connectors.protocol import Capability, ConnectorError
from connectors.simulator import FileLedger, Simulator
from connectors.simulator import make as make_simulator

TROUBLE = float(os.environ.get("BENCH_TROUBLE", "0"))
HELPED = frozenset({Capability.IDEMPOTENT_START, Capability.FIND_BY_REQUEST})


class Troubled:
    """Passes everything on to the simulator; with the probability `BENCH_TROUBLE` the answer goes wrong."""

    def __init__(self, inner: Simulator) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    def start(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """Starts always arrive; their answers may not."""
        return self._troubled(self.inner.start(requests, now=now))

    def observe(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """Looks may fail as a whole or one by one."""
        return self._troubled(self.inner.observe(requests, now=now))

    def find(self, requests: Sequence[Any], *, now: datetime) -> Sequence[Any]:
        """As the simulator."""
        return self.inner.find(requests, now=now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _troubled(self, answers: Sequence[Any]) -> Sequence[Any]:
        dice = random.random()
        if dice < TROUBLE:
            note("exception")
            raise RuntimeError("the connector fell over")
        if dice < 2 * TROUBLE:
            note("slow")
            time.sleep(2)
        elif dice < 3 * TROUBLE:
            note("timeout")
            return [ConnectorError("connector.timeout", is_retryable=True) for _ in answers]
        elif dice < 4 * TROUBLE:
            note("garbage")
            return [ConnectorError("connector.garbage", "\x00<html>", is_retryable=True) for _ in answers]
        return answers


def note(kind: str) -> None:
    """Count a trouble."""
    with Path(os.environ["BENCH_LEDGER"] + ".trouble").open("a") as file:
        file.write(f"{kind}\n")


def make(conf: Mapping[str, object], catalogue: Catalogue) -> Troubled:
    """The simulator of this configuration with the ledger of the campaign."""
    inner = make_simulator(conf, catalogue, ledger=FileLedger(Path(os.environ["BENCH_LEDGER"])))
    if os.environ.get("BENCH_UNHELPFUL"):
        inner = replace(inner, capabilities=inner.capabilities - HELPED)
    return Troubled(inner)
