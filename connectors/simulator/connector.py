"""The simulator as a connector: what it takes, what it answers, and what a run does to a machine.

Pure in (seed, VM facts, plan, stored start time, request id, now): no state, no threads, no sleeping, no randomness
beyond hashing. Asking twice gives the same answer, so a start can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property

from connectors.catalogue import Catalogue
from connectors.protocol import (
    AssessmentResult,
    Capability,
    ConnectorError,
    DiscoveredPage,
    InstallationResult,
    Observation,
    ObserveRequest,
    PatchOutcome,
    Progress,
    RestartResult,
    StartChunk,
    Started,
    StartRequest,
    Traits,
    VmRef,
)
from connectors.simulator.configuration import CAPABILITIES, TRAITS, SimulatorConfiguration
from connectors.simulator.inventory import discovered
from connectors.simulator.ledger import Answer, Course, CourseStep, Ledger
from connectors.simulator.machines import Machines, line_of
from connectors.simulator.misfortunes import INSTALL_ERROR, Misfortune, is_wished, settings_of, symptom_of, wishes_of
from connectors.simulator.windows_update import Machine, WindowsUpdate, offer_period
from patching.codes import ErrorCode
from patching.outcome import MSRT_KB, RunFacts, fits, judge_run, minutes_for
from patching.releases import as_of
from patching.rollback import INSTALL, REBOOT, UNINSTALL, RollbackOrder
from patching.selection import Guard, guard_for, select
from patching.terms import (
    HOTPATCH_TYPES,
    Classification,
    InstallationPlan,
    InstallationState,
    InstalledUpdate,
    OperationKind,
    Patch,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    RunStatus,
)
from patching.track import judge_track

# Lengths in simulated seconds.
ASSESSMENT_SECONDS = 180.0
LONGEST_ASSESSMENT = 1.2 * ASSESSMENT_SECONDS
REBOOT_SECONDS = 240.0
HANGING_REBOOT_SECONDS = 900.0
VERIFY_SECONDS = 30.0
SETTINGS_SECONDS = 120.0
DOWNLOAD_SHARE = 0.2  # of an update's whole time
# How long after the request (in real seconds) a passing misfortune lasts.
THROTTLED_FOR = timedelta(seconds=60)
ANSWER_LOST_FOR = timedelta(seconds=30)
FIRST_STEPS = {
    OperationKind.ASSESSMENT: "assessing",
    OperationKind.SETTINGS: "configuring",
    OperationKind.RESTART: "rebooting",
}
_TAKES_STARTS = frozenset({"running", "starting", "unknown"})  # power states


# --- making one --------------------------------------------------------------------------------------------------


def make(
    conf: SimulatorConfiguration, catalogue: Catalogue, *, ledger: Ledger | None = None, world: Catalogue | None = None
) -> Simulator:
    """A simulator of this configuration.

    `catalogue` is what the portal has on record; `world` is what Windows Update has, where that is more.
    """
    return Simulator(
        catalogue=catalogue,
        seed=conf.seed,
        catalogue_date=conf.catalogue_date,
        clock_factor=conf.clock_factor,
        ledger=ledger,
        world=world,
        inventory_size=conf.inventory_size,
    )


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of a run, in simulated seconds from its start. `outcome` is known when it is over."""

    step: str
    begins: float
    ends: float
    patch: Patch | None = None
    index: int = 0
    outcome: PatchOutcome | None = None
    named_kb: str = ""  # where only the KB is known

    @property
    def kb_number(self) -> str:
        return self.patch.kb_number if self.patch else self.named_kb


@dataclass(frozen=True, slots=True)
class _Run:
    """A whole installation, from its first to its last second."""

    stretches: tuple[_Stretch, ...]
    total: int
    result: InstallationResult

    @property
    def length(self) -> float:
        return self.stretches[-1].ends


@dataclass(frozen=True)
class Simulator:
    """A connector whose machines are simulated. Thread-safe: it only remembers what it can work out again.

    `catalogue` is the portal's record: the hotpatch guard that comes with a plan is judged by it, since a machine knows
    no guard. `world` is what Windows Update has (None: the same).
    """

    catalogue: Catalogue
    seed: int
    catalogue_date: date | None
    clock_factor: float
    ledger: Ledger | None = None
    world: Catalogue | None = None
    assessment_seconds: float = ASSESSMENT_SECONDS  # how long one takes, about; 0: its answer is there at once
    inventory_size: int = 0  # how many machines it lists by itself
    is_patient: bool = False  # looks come when something ends, not every few seconds: for clocks that jump
    capabilities: frozenset[Capability] = CAPABILITIES
    traits: Traits = TRAITS
    _guards_known: dict[object, Guard] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def updates(self) -> WindowsUpdate:
        """What Windows Update has."""
        return WindowsUpdate(world=self.world or self.catalogue, recorded=self.catalogue)

    @cached_property
    def machines(self) -> Machines:
        """The machines, as the seed has them."""
        return Machines(self.updates, self.seed)

    # --- the protocol

    def discover(self, cursor: str = "") -> DiscoveredPage | ConnectorError:
        """The machines that its configuration gives it, a thousand at a time."""
        return discovered(seed=self.seed, size=self.inventory_size, cursor=cursor)

    def start(
        self,
        requests: Iterator[StartRequest],
        *,
        now: datetime,
        until: float,  # noqa: ARG002 (no call of it takes any time)
    ) -> Iterable[StartChunk]:
        """Take what a machine takes, all of it at once. The same request id answers again and starts nothing new."""
        chunk = [(request.request_id, self._start(request, now)) for request in requests]
        if chunk:
            yield chunk

    def _start(self, request: StartRequest, now: datetime) -> Started | ConnectorError:
        refusal = self._refusal(request, now)
        if refusal is not None and refusal.nothing_was_sent:
            return refusal
        if self.ledger is not None:
            longest = request.plan.maximum_duration if request.plan else None
            self.ledger.record(request.request_id, request.vm.vm_id, request.kind, now, longest)
        return refusal or self._started(request)

    def _started(self, request: StartRequest) -> Started:
        is_over = request.kind is OperationKind.ASSESSMENT and not self.assessment_seconds
        wait = 0.0 if is_over else self._look_again(LONGEST_ASSESSMENT)
        return Started(handle=str(request.request_id), look_again_after=wait)

    def find(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError | None]:
        """Say as if received whatever a start would be taken for now: what it does follows from the request alone.

        None only where a start would be refused with nothing sent. The simulator keeps no list of what it received,
        so it cannot tell a request that was never sent from one that was; starting again is always safe instead.
        """
        refusals = [self._refusal(request, now) for request in requests]
        return [
            None if refusal is not None and refusal.nothing_was_sent else self._started(request)
            for request, refusal in zip(requests, refusals, strict=True)
        ]

    def observe(self, requests: Sequence[ObserveRequest], *, now: datetime) -> Sequence[Observation | ConnectorError]:
        """Look once at each running operation."""
        seen = [self._observe(request, now) for request in requests]
        if self.ledger is not None:
            for request, what in zip(requests, seen, strict=True):
                if isinstance(what, Observation) and (found := _found(what)) is not None:
                    self.ledger.answered(Answer(request.vm.vm_id, now, found.available, found.is_reboot_pending))
        return seen

    # --- starting

    def _refusal(self, request: StartRequest, now: datetime) -> ConnectorError | None:
        vm, wishes = request.vm, wishes_of(request.vm.tags)
        age = now - request.requested_at
        # Settings are the platform's, which keeps them for a machine of any system, stopped or not.
        is_for_the_machine = request.kind is not OperationKind.SETTINGS
        if is_for_the_machine and line_of(vm) is None:
            return ConnectorError(ErrorCode.VM_UNSUPPORTED, nothing_was_sent=True)
        if is_for_the_machine and vm.power_state not in _TAKES_STARTS:
            return ConnectorError(ErrorCode.VM_NOT_RUNNING, nothing_was_sent=True)
        if Misfortune.AGENT_NOT_READY in wishes:
            return ConnectorError(ErrorCode.AGENT_NOT_READY, nothing_was_sent=True)
        if Misfortune.UNREACHABLE in wishes:
            return ConnectorError(ErrorCode.CONNECTOR_UNREACHABLE, is_retryable=True, nothing_was_sent=True)
        if Misfortune.THROTTLED in wishes and age < THROTTLED_FOR:
            return ConnectorError(
                ErrorCode.CONNECTOR_THROTTLED, is_retryable=True, nothing_was_sent=True, retry_after=30
            )
        if Misfortune.LOST_ANSWER in wishes and age < ANSWER_LOST_FOR:
            return ConnectorError(ErrorCode.CONNECTOR_TIMEOUT, is_retryable=True)
        return None

    # --- looking

    def _observe(self, request: ObserveRequest, now: datetime) -> Observation | ConnectorError:
        elapsed = max(0.0, (now - request.started_at).total_seconds()) * self.clock_factor
        if Misfortune.SILENT in wishes_of(request.vm.tags):
            step = FIRST_STEPS.get(request.kind, "downloading")
            return Observation(progress=Progress(step=step), look_again_after=600.0 if self.is_patient else 5.0)
        if request.kind is OperationKind.SETTINGS:
            return self._observe_settings(request, elapsed)
        line = line_of(request.vm)
        if line is None:
            return ConnectorError(ErrorCode.VM_UNSUPPORTED)
        moment = as_of(self.catalogue_date, request.started_at)
        machine = self.machines.machine(request.vm, line, moment)
        if request.kind is OperationKind.ASSESSMENT:
            return self._observe_assessment(request, machine, moment, elapsed)
        if request.kind is OperationKind.RESTART:
            return self._observe_restart(request, machine, moment, elapsed)
        if request.rollback is not None:
            return self._observe_rollback(request, request.rollback, machine, moment, elapsed)
        if request.plan is None:
            return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "an installation without a plan")
        run = self._run(request, request.plan, machine, moment)
        if elapsed >= run.length:
            self._tell(request, run.stretches)
        return self._observe_run(run, elapsed)

    def _tell(self, request: ObserveRequest, stretches: Iterable[_Stretch]) -> None:
        """Write down what the machine went through."""
        if self.ledger is None:
            return

        def at(seconds: float) -> datetime:
            return request.started_at + timedelta(seconds=seconds / self.clock_factor)

        stretches, wishes = list(stretches), wishes_of(request.vm.tags)
        has_hung = Misfortune.REBOOT_HANGS in wishes and any(stretch.step == "rebooting" for stretch in stretches)

        def has_failed(stretch: _Stretch) -> bool:
            """Whether it came to nothing, whatever the machine reported. A reboot that hangs undoes the whole run."""
            outcome = stretch.outcome
            is_lie = outcome is not None and is_wished(wishes, Misfortune.LIES, outcome.patch)
            return has_hung or is_lie or (outcome is not None and outcome.state is InstallationState.FAILED)

        steps = tuple(
            CourseStep(
                what=stretch.step,
                begins=at(stretch.begins),
                ends=at(stretch.ends),
                kb_number=stretch.kb_number,
                has_failed=has_failed(stretch),
            )
            for stretch in stretches
        )
        self.ledger.went_through(Course(request.request_id, request.vm.vm_id, request.kind, steps))

    def _observe_assessment(
        self, request: ObserveRequest, machine: Machine, moment: datetime, elapsed: float
    ) -> Observation:
        longest = 1.2 * self.assessment_seconds
        if elapsed < longest and elapsed < (length := longest * (2 + self.machines.dice(request.vm, "assessment")) / 3):
            return Observation(
                progress=Progress(
                    step="assessing",
                    fraction=elapsed / length,
                    remaining_seconds=(length - elapsed) / self.clock_factor,
                ),
                look_again_after=self._look_again(length - elapsed),
            )
        return Observation(assessment=self._assessment(request.vm, machine, moment))

    def _observe_rollback(
        self, request: ObserveRequest, order: RollbackOrder, machine: Machine, moment: datetime, elapsed: float
    ) -> Observation:
        """Uninstall, install the baseline if it is not there, reboot, look."""
        stretches: list[_Stretch] = []
        clock = 0.0
        steps = [
            *(("uninstalling", kb, UNINSTALL) for kb in order.uninstall_kbs),
            *([("installing", order.target_kb, INSTALL)] if order.must_install_target else []),
            ("rebooting", "", REBOOT),
            ("verifying", "", timedelta(seconds=VERIFY_SECONDS)),
        ]
        for step, kb_number, length in steps:
            stretches.append(_Stretch(step, clock, clock + length.total_seconds(), named_kb=kb_number))
            clock = stretches[-1].ends
        if elapsed >= clock:
            self._tell(request, stretches)
            back = self.machines.rolled_back(machine, order, request.started_at)
            return Observation(assessment=self._assessment(request.vm, back, moment))
        number = next(place for place, stretch in enumerate(stretches) if elapsed < stretch.ends)
        return Observation(
            is_rebooting=stretches[number].step == "rebooting",
            progress=Progress(
                step=stretches[number].step,
                kb_number=steps[number][1],
                index=number + 1,
                total=len(steps) - 2,
                fraction=elapsed / clock,
                remaining_seconds=(clock - elapsed) / self.clock_factor,
            ),
            look_again_after=self._look_again(stretches[number].ends - elapsed),
        )

    def _observe_restart(
        self, request: ObserveRequest, machine: Machine, moment: datetime, elapsed: float
    ) -> Observation:
        """The machine goes down, comes back with everything that waited for it, and looks what is there."""
        has_hung = Misfortune.REBOOT_HANGS in wishes_of(request.vm.tags)
        back = HANGING_REBOOT_SECONDS if has_hung else REBOOT_SECONDS
        length = back + VERIFY_SECONDS
        if elapsed < length:
            is_down = elapsed < back
            return Observation(
                is_rebooting=is_down,
                progress=Progress(
                    step="rebooting" if is_down else "verifying",
                    fraction=elapsed / length,
                    remaining_seconds=(length - elapsed) / self.clock_factor,
                ),
                look_again_after=self._look_again((back if is_down else length) - elapsed),
            )
        self._tell(request, [_Stretch("rebooting", 0.0, back), _Stretch("verifying", back, length)])
        outcome = judge_run(RunFacts(is_reboot_needed=True, has_reboot_failed=has_hung))
        after = self.machines.after_run(machine, [], has_rebooted=True, is_reboot_outstanding=False)
        return Observation(
            restart=RestartResult(
                status=outcome.status,
                reboot_status=outcome.reboot_status,
                error=ConnectorError(outcome.error_code) if has_hung else None,
                final_assessment=None if has_hung else self._assessment(request.vm, after, moment),
            )
        )

    def _observe_settings(self, request: ObserveRequest, elapsed: float) -> Observation | ConnectorError:
        """The machine takes any settings, and has them when it says so."""
        if request.settings is None:
            return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "a change of settings without settings")
        if elapsed >= SETTINGS_SECONDS:
            self._tell(request, [_Stretch("configuring", 0.0, SETTINGS_SECONDS)])
            return Observation(settings=request.settings)
        left = SETTINGS_SECONDS - elapsed
        return Observation(
            progress=Progress(
                step="configuring",
                fraction=elapsed / SETTINGS_SECONDS,
                remaining_seconds=left / self.clock_factor,
            ),
            look_again_after=self._look_again(left),
        )

    def _assessment(self, vm: VmRef, machine: Machine, moment: datetime) -> AssessmentResult:
        """What an assessment says. A machine that cannot hotpatch says so beside what it found."""
        symptom = symptom_of(wishes_of(vm.tags)) if vm.is_hotpatch_enabled else None
        is_told = symptom is not None and symptom.is_told_by_assessments
        return AssessmentResult(
            status=RunStatus.COMPLETED_WITH_WARNINGS if is_told else RunStatus.SUCCEEDED,
            available=self.updates.offers(machine, moment),
            is_reboot_pending=machine.is_reboot_pending,
            os_build=machine.os_build,
            installed=machine.installed,
            is_ready_for_hotpatches=not is_told,
            settings=settings_of(vm),
            error=ConnectorError(symptom.code, symptom.detail) if symptom is not None and is_told else None,
        )

    def _observe_run(self, run: _Run, elapsed: float) -> Observation:
        if elapsed >= run.length:
            return Observation(installation=run.result)
        current = next(stretch for stretch in run.stretches if elapsed < stretch.ends)
        patch = current.patch
        return Observation(
            is_rebooting=current.step == "rebooting",
            progress=Progress(
                step=current.step,
                kb_number=patch.kb_number if patch else "",
                title=patch.title if patch else "",
                index=current.index,
                total=run.total,
                fraction=elapsed / run.length,
                remaining_seconds=(run.length - elapsed) / self.clock_factor,
            ),
            outcomes=tuple(s.outcome for s in run.stretches if s.outcome is not None and s.ends <= elapsed),
            look_again_after=self._look_again(current.ends - elapsed),
        )

    def _look_again(self, simulated_seconds: float) -> float:
        """When another look is worth it, in real seconds: often enough to be lively, never busy.

        At once where the clock is so fast that everything is over by then (benchmarks).
        """
        if self.is_patient:
            return 0.01 + simulated_seconds / self.clock_factor  # no look a microsecond too early
        return min(5.0, max(0.5, simulated_seconds / self.clock_factor / 2)) if self.clock_factor < 1e6 else 0.0

    # --- an installation

    def _run(self, request: ObserveRequest, plan: InstallationPlan, machine: Machine, moment: datetime) -> _Run:
        """The whole run: what is installed when, whether it reboots, how it ends."""
        wishes = wishes_of(request.vm.tags)
        offers = self.updates.offers(machine, moment)
        selection = select(offers, plan, guard=self._guard(request.vm, machine, moment))
        queue = sorted(selection.selected, key=lambda v: self._install_order(machine.line, v.patch))
        stretches: list[_Stretch] = []
        clock = 0.0
        outcomes: dict[str, PatchOutcome] = {
            v.patch.key: PatchOutcome(v.patch, v.state, reason=v.reason) for v in selection.verdicts
        }
        installed: list[tuple[Patch, float]] = []
        for index, verdict in enumerate(queue, start=1):
            patch = verdict.patch
            if not fits(timedelta(seconds=clock), patch, plan.maximum_duration):
                break
            is_slow = Misfortune.WINDOW_EXCEEDED in wishes and index == 1
            length = self._seconds_for(request.vm, machine.line, patch, plan, is_slow=is_slow)
            here, ends = clock + DOWNLOAD_SHARE * length, clock + length
            error = self._patch_error(machine.line, patch, wishes)
            outcome = PatchOutcome(
                patch,
                InstallationState.FAILED if error else InstallationState.INSTALLED,
                error_code=error,
                reason=verdict.reason,
            )
            outcomes[patch.key] = outcome
            stretches.append(_Stretch("downloading", clock, here, patch, index))
            stretches.append(_Stretch("installing", here, ends, patch, index, outcome))
            if not error:
                installed.append((patch, ends))
            clock = ends
        return self._end(request, plan, machine, moment, queue_length=len(queue), stretches=stretches, outcomes=outcomes,
                         installed=installed, clock=clock, wishes=wishes)  # fmt: skip

    def _end(
        self,
        request: ObserveRequest,
        plan: InstallationPlan,
        machine: Machine,
        moment: datetime,
        *,
        queue_length: int,
        stretches: list[_Stretch],
        outcomes: Mapping[str, PatchOutcome],
        installed: Sequence[tuple[Patch, float]],
        clock: float,
        wishes: frozenset[str],
    ) -> _Run:
        """The reboot, the look at what is there then, and the verdict."""
        is_needed = machine.is_reboot_pending or any(_needs_reboot(patch) for patch, _at in installed)
        will_reboot = plan.reboot_setting is RebootSetting.ALWAYS or (
            is_needed and plan.reboot_setting is RebootSetting.IF_REQUIRED
        )
        has_hung = will_reboot and Misfortune.REBOOT_HANGS in wishes
        if will_reboot:
            ends = clock + (HANGING_REBOOT_SECONDS if has_hung else REBOOT_SECONDS)
            stretches.append(_Stretch("rebooting", clock, ends))
            clock = ends
        stretches.append(_Stretch("verifying", clock, clock + VERIFY_SECONDS))
        outcome = judge_run(
            RunFacts(
                has_failed_patch=any(o.state is InstallationState.FAILED for o in outcomes.values()),
                has_pending_patch=any(o.state is InstallationState.PENDING for o in outcomes.values()),
                is_reboot_needed=is_needed,
                has_reboot_failed=has_hung,
                reboot_setting=plan.reboot_setting,
            )
        )
        after = self.machines.after_run(
            machine,
            [
                InstalledUpdate(patch, self._done_at(request, at))
                for patch, at in installed
                if not is_wished(wishes, Misfortune.LIES, patch)
            ],
            has_rebooted=will_reboot and not has_hung,
            is_reboot_outstanding=is_needed and (not will_reboot or has_hung),
        )
        result = InstallationResult(
            status=outcome.status,
            reboot_status=outcome.reboot_status,
            is_maintenance_window_exceeded=outcome.is_maintenance_window_exceeded,
            patches=tuple(outcomes.values()),
            error=self._error_of(outcome.error_code, machine.line, outcomes.values(), wishes),
            final_assessment=None if has_hung else self._assessment(request.vm, after, moment),
        )
        return _Run(tuple(stretches), queue_length, result)

    def _guard(self, vm: VmRef, machine: Machine, moment: datetime) -> Guard:
        """The portal's guard for this machine, by the portal's record: it comes with the plan."""
        key = (
            machine.line,
            vm.is_hotpatch_enabled,
            machine.kbs,
            machine.os_build,
            machine.is_reboot_pending,
            offer_period(moment),
        )
        if key not in self._guards_known:
            releases = self.catalogue.releases
            verdict = judge_track(
                releases,
                machine.line,
                is_hotpatch_on=vm.is_hotpatch_enabled,
                installed_kbs=machine.kbs,
                os_build=machine.os_build,
                as_of=moment,
                is_list_complete=True,
                is_reboot_pending=machine.is_reboot_pending,
            )
            self._guards_known[key] = guard_for(verdict, releases, machine.line, moment)
        return self._guards_known[key]

    def _done_at(self, request: ObserveRequest, seconds: float) -> datetime:
        """The moment of a run so many simulated seconds after its start, to the second."""
        return (request.started_at + timedelta(seconds=seconds / self.clock_factor)).replace(microsecond=0)

    def _is_hotpatch(self, line: ProductLine, patch: Patch) -> bool:
        release = self.updates.release_of(line, patch)
        return release is not None and release.type in HOTPATCH_TYPES

    def _install_order(self, line: ProductLine, patch: Patch) -> tuple[int, str]:
        """Definitions first, the OS last, as Windows Update does."""
        if patch.classification is Classification.DEFINITION:
            return 0, patch.key
        return (1 if self.updates.release_of(line, patch) is None else 2), patch.key

    def _patch_error(self, line: ProductLine, patch: Patch, wishes: frozenset[str]) -> str:
        """The error with which an update ends; empty: it succeeds."""
        if is_wished(wishes, Misfortune.FAIL, patch):
            return INSTALL_ERROR
        symptom = symptom_of(wishes)
        return symptom.patch_error if symptom is not None and self._is_hotpatch(line, patch) else ""

    def _error_of(
        self, code: str, line: ProductLine, outcomes: Iterable[PatchOutcome], wishes: frozenset[str]
    ) -> ConnectorError | None:
        """The error of a run; a hotpatch that failed for a symptom of the machine tells the symptom."""
        symptom = symptom_of(wishes)
        failed = (o.patch for o in outcomes if o.state is InstallationState.FAILED)
        if code and symptom is not None and any(self._is_hotpatch(line, patch) for patch in failed):
            return ConnectorError(symptom.code, symptom.detail)
        return ConnectorError(code) if code else None

    def _seconds_for(
        self, vm: VmRef, line: ProductLine, patch: Patch, plan: InstallationPlan, *, is_slow: bool
    ) -> float:
        """How long an update takes, its download included, in simulated seconds.

        Never longer than the average that the window's arithmetic counts, so that a run does what its review said.
        """
        if is_slow:
            return plan.maximum_duration.total_seconds()
        share = self.machines.dice(vm, patch.key)
        if patch.classification is Classification.DEFINITION:
            return 60 + 60 * share
        if self._is_hotpatch(line, patch):
            return 240 + 120 * share
        return minutes_for(patch) * 60 * (0.6 + 0.4 * share)


def _found(seen: Observation) -> AssessmentResult | None:
    """The assessment that an observation ends with, None while it runs or where the machine was not looked at."""
    ending = seen.installation or seen.restart
    return seen.assessment if ending is None else ending.final_assessment


def _needs_reboot(patch: Patch) -> bool:
    """Whether installing it really needs a reboot: of what may ask for one, .NET does and MSRT does not."""
    if patch.reboot_behavior is RebootBehavior.ALWAYS_REQUIRES_REBOOT:
        return True
    return patch.reboot_behavior is RebootBehavior.CAN_REQUEST_REBOOT and patch.kb_number != MSRT_KB
