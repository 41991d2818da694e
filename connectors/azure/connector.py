"""Azure as a connector: what it is asked to start, what a look sees, and whether a start arrived.

It keeps nothing between two calls: what is running is known by its handle, which the portal keeps. Calls of a batch go out side by
side, in threads that are bounded and whose every call is (connectors/azure/link.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from connectors.azure import graph, inventory
from connectors.azure.answers import Answer, NoAnswer, find, moment_of, text_of
from connectors.azure.bodies import (
    arc_settings_body,
    installation_body,
    is_anything_asked,
    license_body,
    settings_body,
)
from connectors.azure.configuration import (
    CALL_SECONDS,
    CAPABILITIES,
    THREADS,
    TRAITS,
    AzureConfiguration,
    budget_of,
)
from connectors.azure.errors import news, passing, refusal, silence
from connectors.azure.guarding import guard_of, held_kbs, is_guarding, up_to_the_record
from connectors.azure.handles import Handle, handle_of, handle_of_answer, is_ours
from connectors.azure.link import Ask, Link, link_for
from connectors.azure.permissions import missing_permissions
from connectors.azure.resources import Resource, Type, resource_of
from connectors.azure.results import (
    arc_settings_of,
    assessment_of,
    began_at,
    build_of,
    count_of,
    edition_of,
    error_in,
    hotpatch_feature,
    installation_of,
    installed_by,
    needs_action,
    settings_of,
    summary_of,
    word,
)
from connectors.catalogue import Catalogue
from connectors.permissions import Missing
from connectors.protocol import (
    Capability,
    ConnectorError,
    DiscoveredPage,
    InstallationResult,
    Observation,
    ObserveRequest,
    Place,
    Progress,
    StartChunk,
    Started,
    StartOutcome,
    StartRequest,
    Traits,
    VmRef,
)
from patching.codes import ErrorCode
from patching.eligibility import needs_licence
from patching.enrolment import Subscription
from patching.terms import OperationKind, PatchSettings, RebootStatus, RunStatus

COMPUTE_VERSION = "2026-04-01"
# Seconds until a look is worth it, where Azure does not say: an assessment takes minutes, settings take seconds.
FIRST_LOOK = {OperationKind.ASSESSMENT: 20.0, OperationKind.INSTALLATION: 30.0, OperationKind.SETTINGS: 5.0}
LOOK_AGAIN = 30.0
LEAST_WAIT = 1.0
# With less time left a start is not sent at all: one whose answer is not waited for is in doubt.
LEAST_FOR_A_START = 4.0
ASSESSMENT_LENGTH = timedelta(minutes=10)
GRAPH_LAG = timedelta(minutes=10)  # what Resource Graph does not list so long after a run, it will not list
_STEPS = {OperationKind.ASSESSMENT: "assessing", OperationKind.SETTINGS: "configuring"}
_TAKES_STARTS = frozenset({"running", "starting", "unknown", ""})  # power states
_CLOCKS_DIFFER = timedelta(seconds=5)
_RUNNING_WORDS = frozenset({"inprogress", "running", "accepted", "updating", "creating", "notstarted", "pending"})
_NO_GRAPH = frozenset({400, 403, 404})  # Resource Graph is not there, or not for this principal
_UNREADABLE = ConnectorError(ErrorCode.CONNECTOR_GARBAGE, is_retryable=True)
_ENROLLING = frozenset({Subscription.ENABLING.lower(), Subscription.DISABLING.lower()})
_ENROLLED, _NOT_ENROLLED = frozenset({Subscription.ENABLED.lower()}), frozenset({"", Subscription.DISABLED.lower()})
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
LOST = ConnectorError(ErrorCode.OPERATION_LOST)


def make(conf: AzureConfiguration, catalogue: Catalogue) -> AzureConnector:
    """A connector of this configuration. Raises UnusableError where its certificates or its secret cannot be read."""
    from connectors.registry import Trouble, TroubleCode, UnusableError  # which knows this module by its name

    try:
        return AzureConnector(conf, catalogue, link_for(conf))
    except (OSError, LookupError, ValueError) as error:
        what = f"{conf.ca_bundle}: {error}" if isinstance(error, OSError) else str(error)
        raise UnusableError(Trouble(TroubleCode.BROKEN, what)) from error


@dataclass(frozen=True, slots=True)
class _Running:
    """It has not ended. `handle`: what is to be kept of it now."""

    handle: Handle
    again_after: float


@dataclass(frozen=True, slots=True)
class _Ended:
    """It has ended, well or badly. `output`: its result, `error` that of the operation itself."""

    is_good: bool
    output: dict[str, Any] | None
    error: ConnectorError | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True)
class AzureConnector:
    """Machines behind one connection. Thread-safe."""

    conf: AzureConfiguration
    catalogue: Catalogue
    link: Link = field(repr=False)
    capabilities: frozenset[Capability] = CAPABILITIES
    traits: Traits = TRAITS

    # --- the protocol

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:
        """A page of the virtual machines of the subscriptions, each with its instance view."""
        return inventory.discovered(self.link, self.conf, cursor, deadline=time.monotonic() + inventory.STEP_SECONDS)

    def start(self, requests: Iterator[StartRequest], *, now: datetime, until: float) -> Iterator[StartChunk]:
        """Start operations in chunks of as many as there are threads; yields the answers chunk by chunk."""
        while batch := list(islice(requests, THREADS)):
            yield self._start(batch, now, min(until, time.monotonic()) + CALL_SECONDS)

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        """Look once at each running operation. All looks together take no longer than one call may."""
        jobs = [partial(self._look, request, now) for request in requests]
        seen = self.link.each(jobs, deadline=time.monotonic() + CALL_SECONDS) if jobs else []
        return [silence(answer) if isinstance(answer, NoAnswer) else answer for answer in seen]

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:  # noqa: ARG002 (the protocol's signature)
        """Say whether a start arrived, by what Azure keeps of its machine. What is not proven stays in doubt.

        None only for what is refused here before it is sent, where the machine shows no run either.
        """
        jobs = [partial(self._find, request) for request in requests]
        found = self.link.each(jobs, deadline=time.monotonic() + CALL_SECONDS) if jobs else []
        return [silence(answer) if isinstance(answer, NoAnswer) else answer for answer in found]

    # --- what it may do

    def missing_permissions(self) -> Sequence[Missing] | ConnectorError:
        """What the account lacks of what the portal does in the subscriptions that it reads."""
        return missing_permissions(self.link, self.conf, deadline=time.monotonic() + CALL_SECONDS)

    # --- starting

    def _start(self, batch: Sequence[StartRequest], now: datetime, deadline: float) -> StartChunk:
        outcomes: dict[int, StartOutcome] = {}
        jobs: list[Callable[[Ask], StartOutcome]] = []
        numbers: list[int] = []
        for number, request in enumerate(batch):
            resource = resource_of(request.vm.arm_id)
            refused = _refusal(request, resource)
            if refused is not None or resource is None:
                outcomes[number] = refused or ConnectorError(ErrorCode.VM_UNSUPPORTED, nothing_was_sent=True)
            else:
                jobs.append(partial(self._send, request, resource, now, deadline))
                numbers.append(number)
        if jobs:
            answers = self.link.each(jobs, deadline=deadline)
            for number, answer in zip(numbers, answers, strict=True):
                outcomes[number] = silence(answer, is_start=True) if isinstance(answer, NoAnswer) else answer
        return [(request.request_id, outcomes[number]) for number, request in enumerate(batch)]

    def _send(
        self, request: StartRequest, resource: Resource, now: datetime, deadline: float, ask: Ask
    ) -> StartOutcome:
        """Send one start: one POST or PATCH, whatever is asked before it."""
        bucket = _bucket(request.vm)
        call = self._call_of(request, resource, now, ask)
        if isinstance(call, ConnectorError):
            return call
        if deadline - time.monotonic() < LEAST_FOR_A_START:
            return ConnectorError(ErrorCode.CONNECTOR_TIMEOUT, is_retryable=True, nothing_was_sent=True)
        answer = ask(call)
        if isinstance(answer, NoAnswer):
            return silence(answer, is_start=True)
        if answer.status not in {200, 201, 202}:
            return refusal(answer, is_start=True, bucket=bucket, own_bucket=f"vm:{resource.path.lower()}"[:200])
        handle = handle_of_answer(answer, self.conf.address)
        if answer.status == 200 and request.kind is not OperationKind.SETTINGS and _is_result(answer.json):
            handle = replace(handle, output=answer.json)
        if not (handle.status or handle.result or handle.activity or request.kind is OperationKind.SETTINGS):
            return _UNREADABLE  # taken, and nobody knows as what: it is found by its machine
        wait = answer.retry_after if answer.retry_after is not None else FIRST_LOOK[request.kind]
        return Started(str(handle), look_again_after=max(LEAST_WAIT, wait), news=news(answer, bucket))

    def _call_of(
        self, request: StartRequest, resource: Resource, now: datetime, ask: Ask
    ) -> Callable[[Link], object] | ConnectorError:
        """The one call that starts it. What has to be read before is read here."""
        common: dict[str, Any] = {"polling": False, "request_id": str(request.request_id)}
        where = (resource.group, resource.name)
        if request.kind is OperationKind.ASSESSMENT:
            return lambda link: link.patching(resource).begin_assess_patches(*where, **common)
        if request.kind is OperationKind.SETTINGS and request.settings is not None:
            if resource.type is Type.ARC_MACHINE:
                return self._arc_settings(request.settings, resource, common, ask)
            body = settings_body(request.settings)
            return lambda link: link.compute(resource.subscription).begin_update(*where, body, **common)
        asked = self._installation(request, resource, now, ask)
        if isinstance(asked, ConnectorError):
            return asked
        return lambda link: link.patching(resource).begin_install_patches(*where, asked, **common)

    @staticmethod
    def _arc_settings(
        wanted: PatchSettings, resource: Resource, common: dict[str, Any], ask: Ask
    ) -> Callable[[Link], object] | ConnectorError:
        """What a machine outside of Azure is told: its settings, and where its edition needs it, its licence as the last.

        Both are goals: who sends them a second time changes nothing.
        """
        where = (resource.group, resource.name)
        machine = ask(lambda link: link.machine(resource))
        if isinstance(machine, NoAnswer) or machine.status != 200:
            return _unread(machine)
        settings = partial(_change_arc_machine, resource, arc_settings_body(wanted), common["request_id"])
        if not needs_licence(edition_of(machine.json)):
            return settings
        profile = ask(lambda link: link.licenses(resource).get(*where))
        if isinstance(profile, NoAnswer) or profile.status not in {200, 404}:
            return _unread(profile)
        subscription = text_of(hotpatch_feature(profile.json), "subscriptionStatus").lower()
        if subscription in (_ENROLLED if wanted.enable_hotpatching else _NOT_ENROLLED):
            return settings
        changed = ask(settings)
        if isinstance(changed, NoAnswer):
            return silence(changed, is_start=True)
        if changed.status not in {200, 201, 202}:
            return refusal(changed, is_start=True)
        is_new = profile.status == 404
        body = license_body(
            is_on=wanted.enable_hotpatching, location=text_of(machine.json, "location") if is_new else ""
        )
        if is_new:
            return lambda link: link.licenses(resource).begin_create_or_update(*where, body, **common)
        # What else stands in the profile (Software Assurance, extended updates) stays as it is.
        return lambda link: link.licenses(resource).begin_update(*where, body, **common)

    def _installation(
        self, request: StartRequest, resource: Resource, now: datetime, ask: Ask
    ) -> dict[str, Any] | ConnectorError:
        """What is installed, without what the hotpatch guard holds: Azure knows no guard, so it gets the KBs by name."""
        plan = request.plan
        if plan is None:
            return ConnectorError(ErrorCode.PAYLOAD_UNREADABLE, "an installation without a plan", nothing_was_sent=True)
        guard = guard_of(request.vm, self.catalogue, now)
        held: frozenset[str] = frozenset()
        if is_guarding(guard):
            rows = graph.rows_of(ask, [resource.subscription], graph.offered(resource))
            if isinstance(rows, NoAnswer):
                return replace(silence(rows), nothing_was_sent=True)
            if isinstance(rows, Answer) and rows.status not in _NO_GRAPH:
                error = refusal(rows)
                return replace(error, nothing_was_sent=True, retry_after=graph.quota_pause(rows) or error.retry_after)
            offers = inventory.patches(rows, request.vm, self.catalogue) if isinstance(rows, list) else ()
            held = held_kbs(guard, plan, self.catalogue, offers)
            plan = plan if offers else up_to_the_record(guard, plan)
        body = installation_body(plan, held=held)
        if not is_anything_asked(body):
            return ConnectorError(
                ErrorCode.PLAN_NOTHING_TO_DO, "the hotpatch guard holds it all", nothing_was_sent=True
            )
        return body

    # --- looking

    def _look(self, request: ObserveRequest, now: datetime, ask: Ask) -> Observation | ConnectorError:
        resource, handle = resource_of(request.vm.arm_id), handle_of(request.handle)
        is_for_the_machine = request.kind is not OperationKind.SETTINGS
        if resource is None or (is_for_the_machine and request.vm.product_line is None):
            return ConnectorError(ErrorCode.VM_UNSUPPORTED)
        if handle is None:
            return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "the handle of the operation cannot be read")
        state = self._state(handle, ask)
        if not is_for_the_machine:
            return self._settled(request, resource, state, now, ask)
        recorded = self._recorded(request, handle, resource, now, ask) if state is LOST else state
        if isinstance(recorded, _Running):
            return self._running(request, now, recorded)
        if isinstance(recorded, _Ended):
            return self._ended(request, resource, handle, recorded, now, ask)
        return recorded

    def _running(self, request: ObserveRequest, now: datetime, state: _Running) -> Observation:
        """Azure tells no progress: the share is that of the time that it usually, or at most, takes."""
        longest = request.plan.maximum_duration if request.plan else ASSESSMENT_LENGTH
        share = max(timedelta(0), now - request.started_at) / longest
        return Observation(
            progress=Progress(step=_STEPS.get(request.kind, "installing"), fraction=min(0.95, share)),
            handle=str(state.handle) if str(state.handle) != request.handle else None,
            look_again_after=max(LEAST_WAIT, state.again_after),
        )

    def _state(self, handle: Handle, ask: Ask) -> _Running | _Ended | ConnectorError:
        """What Azure says of the operation itself. LOST: it knows nothing of it, or cannot be asked."""
        if handle.output is not None:
            return _Ended(is_good=True, output=handle.output)
        address = handle.status or handle.result
        if not address or not is_ours(address, self.conf.address):
            return LOST
        answer = ask(lambda link: link.get(address))
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status in {404, 410, 403, 400}:
            return LOST  # gone, or a signature that is not taken any more: its machine knows
        if answer.status not in {200, 201, 202, 204}:
            return refusal(answer)
        wait = answer.retry_after if answer.retry_after is not None else LOOK_AGAIN
        renewed = handle.renewed(answer, self.conf.address)
        if answer.status in {202, 204} and not answer.is_json:
            return _Running(renewed, wait)
        if not answer.is_json:
            return replace(_UNREADABLE, detail=f"HTTP {answer.status}, no JSON")
        return self._read(answer.json, renewed, wait, ask, is_result=not handle.status)

    def _read(
        self, told: dict[str, Any], handle: Handle, wait: float, ask: Ask, *, is_result: bool
    ) -> _Running | _Ended | ConnectorError:
        """The state that this answer tells; `is_result`: it is the result itself, once there is one."""
        status = text_of(told, "status").lower()
        if is_result and _is_result(told):
            return _Ended(is_good=True, output=told)
        if not status or status in _RUNNING_WORDS:
            return _Running(handle, wait) if status else replace(_UNREADABLE, detail="an answer without a status")
        ended_at = moment_of(told, "endTime")
        if status in {"failed", "canceled", "cancelled"}:
            error = error_in(told) or ConnectorError(ErrorCode.UNKNOWN, f"Azure calls it {status}")
            return _Ended(False, _output(told), error, ended_at)
        if status != "succeeded":
            return _Running(handle, wait)  # a word that is not known is no end
        output = _output(told)
        return _Ended(True, output, ended_at=ended_at) if output else self._result(handle, ended_at, ask)

    def _result(self, handle: Handle, ended_at: datetime | None, ask: Ask) -> _Ended | ConnectorError:
        """The result of what has succeeded, where its state does not hold it."""
        if not handle.result or not is_ours(handle.result, self.conf.address):
            return _Ended(True, None, ended_at=ended_at)
        answer = ask(lambda link: link.get(handle.result))
        if error := passing(answer):
            return error
        output = None
        if isinstance(answer, Answer) and answer.status == 200 and _is_result(answer.json):
            output = answer.json
        return _Ended(True, output, ended_at=ended_at)

    def _ended(
        self, request: ObserveRequest, resource: Resource, handle: Handle, state: _Ended, now: datetime, ask: Ask
    ) -> Observation | ConnectorError:
        if state.output is None and state.is_good:
            return self._no_end(self._recorded(request, handle, resource, now, ask))
        if state.output is None:
            return _failed(request.kind, state.error)
        if resource.type is not Type.ARC_MACHINE:
            return self._seen(request, resource, state.output, now, ask, ended_at=state.ended_at)
        # Its results hold no patches, but which run it was and how many there are.
        own = replace(handle, activity=text_of(state.output, "installationActivityId") or handle.activity)
        rows = self._rows(request, own, resource, ask)
        if isinstance(rows, ConnectorError):
            return rows
        is_young = now - (moment_of(state.output, "lastModifiedDateTime") or _LONG_AGO) < GRAPH_LAG
        if is_young and len(rows) < (counted := count_of(state.output)):
            return replace(_UNREADABLE, detail=f"Resource Graph lists {len(rows)} of {counted} updates")
        return self._seen(request, resource, state.output, now, ask, rows=rows, ended_at=state.ended_at)

    @staticmethod
    def _no_end(state: _Running | Observation | ConnectorError) -> Observation | ConnectorError:
        """What has succeeded runs no more, whatever its record says yet: another look finds it written."""
        if isinstance(state, _Running):
            return replace(_UNREADABLE, detail="succeeded, and its result is not there yet")
        return state

    def _seen(
        self,
        request: ObserveRequest,
        resource: Resource,
        output: dict[str, Any],
        now: datetime,
        ask: Ask,
        *,
        rows: list[dict[str, Any]] | None = None,
        ended_at: datetime | None = None,
    ) -> Observation | ConnectorError:
        """The end that this result is; an assessment with what is known of its machine beside it."""
        if request.kind is OperationKind.INSTALLATION:
            return Observation(installation=installation_of(output, request.vm, self.catalogue, rows=rows))
        found = assessment_of(output, request.vm, self.catalogue, rows=rows, ended_at=ended_at)
        machine = ask(lambda link: link.machine(resource))
        # Build and settings are worth another look while the assessment is young, and no reason to lose it.
        if now - request.started_at < ASSESSMENT_LENGTH and (error := passing(machine)):
            return error
        if isinstance(machine, Answer) and machine.status == 200:
            found = replace(
                found,
                os_build=build_of(machine.json),
                settings=_settings_in(resource, machine.json, request.vm.settings),
                is_ready_for_hotpatches=not needs_action(machine.json),
            )
        # So is what others installed here: Azure itself, az, another portal.
        runs = graph.rows_of(ask, [resource.subscription], graph.ever_installed(resource))
        if isinstance(runs, list):
            told = installed_by(map(_properties, runs), request.vm.product_line, self.catalogue)
            found = replace(found, installed=told)
        return Observation(assessment=found)

    def _settled(
        self,
        request: ObserveRequest,
        resource: Resource,
        state: _Running | _Ended | ConnectorError,
        now: datetime,
        ask: Ask,
    ) -> Observation | ConnectorError:
        """Settings end with what the machine has then, whatever became of the operation's own record."""
        if isinstance(state, _Running):
            return self._running(request, now, state)
        if isinstance(state, ConnectorError) and state is not LOST:
            return state
        if isinstance(state, _Ended) and not state.is_good:
            return state.error or ConnectorError(ErrorCode.UNKNOWN)
        answer = ask(lambda link: link.machine(resource))
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status != 200:
            return refusal(answer)
        feature = hotpatch_feature(answer.json)
        enrolment = text_of(feature, "subscriptionStatus").lower()
        if text_of(answer.json, "properties.provisioningState").lower() == "updating" or enrolment in _ENROLLING:
            return self._running(request, now, _Running(Handle(), FIRST_LOOK[OperationKind.SETTINGS]))
        wanted = request.settings or request.vm.settings
        if enrolment == Subscription.FAILED.lower() and wanted.enable_hotpatching:
            return error_in(feature) or ConnectorError(ErrorCode.UNKNOWN, "the enrolment has failed")
        reported = _settings_in(resource, answer.json, wanted)
        return Observation(settings=reported) if reported else replace(_UNREADABLE, detail="no settings")

    # --- what Azure keeps of a machine

    def _recorded(
        self, request: ObserveRequest, handle: Handle, resource: Resource, now: datetime, ask: Ask
    ) -> _Running | Observation | ConnectorError:
        """The run as its machine's instance view and Resource Graph have it, where the operation itself is not known."""
        answer = ask(lambda link: link.machine(resource))
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status != 200:
            return refusal(answer)
        last = self._last_run(resource, answer.json, request.kind, ask)
        if isinstance(last, ConnectorError):
            return last
        summary, activity = last
        if not handle.activity or activity.lower() != handle.activity.lower():
            return replace(LOST, detail=f"its machine knows of {activity or 'no run'}")
        if word(text_of(summary, "status"), RunStatus, RunStatus.UNKNOWN) is RunStatus.IN_PROGRESS:
            return _Running(handle, LOOK_AGAIN)
        rows = self._rows(request, handle, resource, ask)
        if isinstance(rows, ConnectorError):
            return rows
        return self._seen(request, resource, summary, now, ask, rows=rows)

    def _last_run(
        self, resource: Resource, machine: dict[str, Any], kind: OperationKind, ask: Ask
    ) -> tuple[dict[str, Any], str] | ConnectorError:
        """What is kept of the machine's last run of this kind, and its id; both empty: nothing.

        A virtual machine tells it in its instance view. Of a machine outside of Azure only Resource Graph knows.
        """
        is_assessment = kind is OperationKind.ASSESSMENT
        key = "assessmentActivityId" if is_assessment else "installationActivityId"
        if resource.type is Type.VIRTUAL_MACHINE:
            summary = summary_of(machine, "availablePatchSummary" if is_assessment else "lastPatchInstallationSummary")
            return summary, text_of(summary, key)
        query = graph.assessment(resource) if is_assessment else graph.installations(resource)
        rows = self._graph_rows(resource, query, ask)
        if isinstance(rows, ConnectorError):
            return rows
        last = max(rows, key=lambda row: began_at(_properties(row)) or _LONG_AGO, default={})
        summary = _properties(last)
        return summary, text_of(summary, key) or text_of(last, "name")

    def _rows(
        self, request: ObserveRequest, handle: Handle, resource: Resource, ask: Ask
    ) -> list[dict[str, Any]] | ConnectorError:
        """The patches of a run as Resource Graph keeps them."""
        is_assessment = request.kind is OperationKind.ASSESSMENT
        query = graph.offered(resource) if is_assessment else graph.installed(resource, handle.activity)
        rows = self._graph_rows(resource, query, ask)
        return rows if isinstance(rows, ConnectorError) else [_properties(row) for row in rows]

    @staticmethod
    def _graph_rows(resource: Resource, query: str, ask: Ask) -> list[dict[str, Any]] | ConnectorError:
        """The rows of a query; where Resource Graph refuses it for good, what was asked about is lost."""
        rows = graph.rows_of(ask, [resource.subscription], query)
        if isinstance(rows, NoAnswer):
            return silence(rows)
        if isinstance(rows, Answer):
            error = replace(refusal(rows), retry_after=graph.quota_pause(rows))
            return error if error.is_retryable else replace(LOST, detail=error.detail)
        return rows

    # --- finding

    def _find(self, request: StartRequest, ask: Ask) -> Started | ConnectorError | None:
        resource = resource_of(request.vm.arm_id)
        refused = _refusal(request, resource)
        if resource is None:
            return None
        answer = ask(lambda link: link.machine(resource))
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status != 200:
            return replace(refusal(answer), is_retryable=True)
        if request.kind is OperationKind.SETTINGS:
            return self._find_settings(request, resource, answer.json)
        began = self._arrived(request, resource, answer.json, ask)
        if began is None and refused is not None:
            return None
        return began or ConnectorError(ErrorCode.START_UNCONFIRMED, is_retryable=True)

    def _find_settings(self, request: StartRequest, resource: Resource, machine: dict[str, Any]) -> Started | None:
        """Settings are a goal: a machine that has them, or is on its way, got them; one that has others is told again."""
        is_under_way = text_of(machine, "properties.provisioningState").lower() == "updating"
        known = request.settings or request.vm.settings
        if is_under_way or _settings_in(resource, machine, known) == request.settings:
            return Started(str(Handle()), look_again_after=FIRST_LOOK[OperationKind.SETTINGS])
        return None

    def _arrived(self, request: StartRequest, resource: Resource, machine: dict[str, Any], ask: Ask) -> Started | None:
        """The run that began on the machine since it was asked for, where it can be no other one.

        Any assessment will do: it tells the same. An installation is taken for ours only if Azure keeps exactly one since
        then, and a user started it.
        """
        last = self._last_run(resource, machine, request.kind, ask)
        if isinstance(last, ConnectorError):
            return None
        summary, activity = last
        began = began_at(summary)
        if not activity or began is None or began < request.requested_at - _CLOCKS_DIFFER:
            return None
        if request.kind is OperationKind.INSTALLATION and not self._is_the_only_one(request, resource, activity, ask):
            return None
        location = request.vm.location.lower() or text_of(machine, "location").lower().replace(" ", "")
        address = (
            f"{self.conf.address}/subscriptions/{resource.subscription}/providers/Microsoft.Compute/locations/{location}"
            f"/operations/{activity}?api-version={COMPUTE_VERSION}"
        )
        handle = Handle(status=address if resource.type is Type.VIRTUAL_MACHINE else "", activity=activity)
        return Started(str(handle), look_again_after=FIRST_LOOK[request.kind])

    def _is_the_only_one(self, request: StartRequest, resource: Resource, activity: str, ask: Ask) -> bool:
        rows = graph.rows_of(ask, [resource.subscription], graph.installations(resource))
        if not isinstance(rows, list):
            return False
        since = request.requested_at - _CLOCKS_DIFFER
        later = [row for row in rows if (at := moment_of(row, "properties.startDateTime")) is not None and at >= since]
        return len(later) == 1 and (
            text_of(later[0], "name").lower() == activity.lower()
            and text_of(later[0], "properties.startedBy").lower() == "user"
        )


def _refusal(request: StartRequest, resource: Resource | None) -> ConnectorError | None:
    """Why nothing is sent; None where it is."""
    unsupported = ConnectorError(ErrorCode.VM_UNSUPPORTED, nothing_was_sent=True)
    if request.kind is OperationKind.ROLLBACK:
        return ConnectorError(ErrorCode.ROLLBACK_NOT_SUPPORTED, nothing_was_sent=True)
    if resource is None or request.kind not in FIRST_LOOK:
        return unsupported
    if request.kind is OperationKind.SETTINGS:
        # They are the platform's, which keeps them for a machine that is stopped, too.
        return None if request.settings is not None else unsupported
    if request.vm.product_line is None:
        return unsupported
    if request.vm.power_state not in _TAKES_STARTS:
        return ConnectorError(ErrorCode.VM_NOT_RUNNING, nothing_was_sent=True)
    return None


def _settings_in(resource: Resource, machine: dict[str, Any], known: PatchSettings) -> PatchSettings | None:
    return arc_settings_of(machine, known) if resource.type is Type.ARC_MACHINE else settings_of(machine)


def _change_arc_machine(resource: Resource, body: dict[str, Any], request_id: str, link: Link) -> object:
    machines = link.hybrid(resource.subscription).machines
    return machines.update(resource.group, resource.name, body, request_id=request_id)


def _unread(answer: Answer | NoAnswer) -> ConnectorError:
    """Nothing is sent where that could not be read which decides what to send."""
    return replace(silence(answer) if isinstance(answer, NoAnswer) else refusal(answer), nothing_was_sent=True)


def _output(told: dict[str, Any]) -> dict[str, Any] | None:
    """The result that the state of an operation holds; None where it holds none."""
    properties = find(told, "properties")
    output = find(properties, "output") or properties
    return output if isinstance(output, dict) and _is_result(output) else None


def _is_result(told: dict[str, Any]) -> bool:
    """Whether this is the result of a run, and not the state of its operation."""
    keys = ("assessmentActivityId", "installationActivityId", "availablePatches", "patches")
    return bool(text_of(told, "status")) and any(find(told, key) is not None for key in keys)


def _bucket(vm: VmRef) -> str:
    return budget_of(Place(vm.subscription, vm.location))


def _properties(row: dict[str, Any]) -> dict[str, Any]:
    found = find(row, "properties")
    return found if isinstance(found, dict) else {}


def _failed(kind: OperationKind, error: ConnectorError | None) -> Observation | ConnectorError:
    """A run that Azure ended without a result: what it did to an installation's machine is not known."""
    if kind is OperationKind.INSTALLATION:
        return Observation(
            installation=InstallationResult(
                RunStatus.UNKNOWN, RebootStatus.UNKNOWN, is_maintenance_window_exceeded=False, patches=(), error=error
            )
        )
    return error or ConnectorError(ErrorCode.ASSESSMENT_FAILED)
