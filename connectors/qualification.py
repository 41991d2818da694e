"""What a qualification kit is: checks of what lies behind a connection, each with what was seen. An optional part of a kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Verdict(StrEnum):
    """How a check went."""

    PASSED = "pass"
    FAILED = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at. `is_required`: without it passed nothing is qualified."""

    name: str
    title: str
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """How one check went. `evidence`: what was seen, never a secret. `reason`: why it failed or was skipped."""

    name: str
    verdict: Verdict
    evidence: str = ""
    reason: str = ""


def passed(name: str, evidence: str) -> Finding:
    """The finding of a check that passed."""
    return Finding(name, Verdict.PASSED, evidence)


def failed(name: str, reason: str, evidence: str = "") -> Finding:
    """The finding of a check that failed."""
    return Finding(name, Verdict.FAILED, evidence, reason)


def skipped(name: str, reason: str) -> Finding:
    """The finding of a check that was not made."""
    return Finding(name, Verdict.SKIPPED, reason=reason)


@runtime_checkable
class Reaches(Protocol):
    """A configuration that says where it leads. `cloud`: the public name of a real one; empty: any other endpoint."""

    @property
    def address(self) -> str:
        """The endpoint."""
        ...

    @property
    def cloud(self) -> str:
        """Which of the vendor's own clouds that is."""
        ...


class Walk(Protocol):
    """Makes the checks of a kit one after the other. `now` is the real time. Never raises."""

    def __call__(self, conf: Any, *, now: datetime) -> Iterator[Finding]:
        """One finding for each check, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Kit:
    """The checks of a kind that only read."""

    checks: tuple[Check, ...]
    walk: Walk


def digest_of(checks: Iterable[Check]) -> str:
    """What these checks are known by: a report of others says nothing about them."""
    told = json.dumps([asdict(check) for check in checks], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()
