"""An operation in the engine's hands: what a step needs of its row, read once and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from connectors.protocol import ObserveRequest, StartRequest
from patching.rollback import RollbackOrder
from patching.terms import InstallationPlan, OperationKind, OperationState, PatchSettings
from updates.models import Priority
from updates.payloads import Payload, read
from updates.selectors.vm_facts import VmFacts

# What a step needs of a row. Cast to text: `json.loads` and `fromisoformat` in bulk beat the driver's loaders.
COLUMNS = """o.id, o.vm_id, o.connection_id, o.kind, o.state, o.priority, o.is_bulk, o.payload::text, o.handle, o.bucket, o.created_at::text,
    o.started_at::text, o.deadline_at <= clock_timestamp(), o.attempts, o.progress::text, s.os_build"""
SOURCE = "updates_operation o LEFT JOIN updates_vmupdatestate s ON s.vm_id = o.vm_id"


class ClaimedRow(NamedTuple):
    """One operation that this worker alone may step until its lease ends. A tuple: every step makes changed copies of it.

    `problem`: what makes its payload unreadable, or empty. `is_unsent`: this worker has moved it to `starting` and has not
    handed it to the connector yet. `facts`: of its VM, loaded when it is stepped.
    """

    pk: UUID
    vm_id: int
    connection_id: int
    kind: OperationKind
    state: OperationState
    priority: int
    is_bulk: bool
    payload: Payload | None
    handle: str
    bucket: str
    created_at: datetime
    started_at: datetime | None
    is_past_deadline: bool
    attempts: int
    progress: Mapping[str, Any] | None
    os_build: str
    problem: str = ""
    is_unsent: bool = False
    facts: VmFacts | None = None

    @classmethod
    def begun(
        cls,
        pk: UUID,
        vm_id: int,
        connection_id: int,
        kind: OperationKind,
        *,
        payload: str | None,
        created_at: datetime,
    ) -> ClaimedRow:
        """One that its bulk request has begun: in `starting` from its first moment on. `payload` as JSON."""
        kept = read(kind, payload)
        return cls(
            pk=pk,
            vm_id=vm_id,
            connection_id=connection_id,
            kind=kind,
            state=OperationState.STARTING,
            priority=Priority.BULK,
            is_bulk=True,
            payload=kept.payload,
            problem=kept.problem,
            handle="",
            bucket="",
            created_at=created_at,
            started_at=created_at,
            is_past_deadline=False,
            attempts=1,
            progress=None,
            os_build="",
            is_unsent=True,
        )

    @classmethod
    def of(cls, row: Sequence[Any]) -> ClaimedRow:
        """The row as `COLUMNS` reads it."""
        (
            pk,
            vm_id,
            connection_id,
            kind,
            state,
            priority,
            is_bulk,
            payload,
            handle,
            bucket,
            created,
            started,
            is_late,
            attempts,
            progress,
            os_build,
        ) = row
        kept = read(OperationKind(kind), payload)
        return cls(
            pk=pk,
            vm_id=vm_id,
            connection_id=connection_id,
            kind=OperationKind(kind),
            state=OperationState(state),
            priority=priority,
            is_bulk=is_bulk,
            payload=kept.payload,
            problem=kept.problem,
            handle=handle,
            bucket=bucket,
            created_at=datetime.fromisoformat(created),
            started_at=datetime.fromisoformat(started) if started else None,
            is_past_deadline=bool(is_late),
            attempts=attempts,
            progress=json.loads(progress) if progress else None,
            os_build=os_build or "",
        )

    # --- what follows from it

    @property
    def plan(self) -> InstallationPlan | None:
        """What an installation is to do."""
        return self.payload if isinstance(self.payload, InstallationPlan) else None

    @property
    def rollback(self) -> RollbackOrder | None:
        """What a rollback is to do."""
        return self.payload if isinstance(self.payload, RollbackOrder) else None

    @property
    def settings(self) -> PatchSettings | None:
        """What a change of settings carries to the machine."""
        return self.payload if isinstance(self.payload, PatchSettings) else None

    @property
    def vm(self) -> VmFacts:
        """The facts of its VM."""
        assert self.facts is not None, "read its VM first"
        return self.facts

    def event(self, code: str) -> str:
        """The message id for the timeline of what changes a machine; a routine assessment has none."""
        return code if self.kind.changes_the_machine else ""

    def start_request(self) -> StartRequest:
        """What the connector is asked to start."""
        return StartRequest(
            request_id=self.pk,
            kind=self.kind,
            vm=self.vm.ref,
            requested_at=self.created_at,
            plan=self.plan,
            rollback=self.rollback,
            settings=self.settings,
        )

    def observe_request(self) -> ObserveRequest:
        """What the connector is asked to look at."""
        return ObserveRequest(
            request_id=self.pk,
            kind=self.kind,
            vm=self.vm.ref,
            handle=self.handle,
            started_at=self.started_at or self.created_at,
            plan=self.plan,
            rollback=self.rollback,
            settings=self.settings,
        )

    # --- the row after a transition that this worker has made

    def starting(self, now: datetime) -> ClaimedRow:
        """In `starting`, and not sent yet."""
        return self._replace(state=OperationState.STARTING, started_at=now, attempts=self.attempts + 1, is_unsent=True)

    def in_progress(self) -> ClaimedRow:
        """Taken by the machine, and written down as such."""
        return self._replace(state=OperationState.IN_PROGRESS)
