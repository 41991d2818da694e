"""The simulator as a connector: what it takes, what it answers, and what a run does to a machine.

Pure in (seed, VM facts, plan, stored start time, request id, now): no state, no threads, no sleeping, no randomness
beyond hashing. Asking twice gives the same answer, so a start can be repeated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from uuid import UUID, uuid5

from connectors.catalogue import Catalogue
from connectors.protocol import (
    AssessmentResult,
    Capability,
    ConnectorError,
    DiscoveredVm,
    InstallationResult,
    Observation,
    ObserveRequest,
    PatchOutcome,
    Progress,
    Started,
    StartRequest,
    VmRef,
)
from connectors.simulator.ledger import Course, CourseStep, Ledger
from connectors.simulator.misfortunes import Misfortune, is_wished, wishes_of
from patching.outcome import MSRT_KB, RunFacts, build_order, fits, judge_run, minutes_for
from patching.releases import (
    OFFERED_FROM,
    PACIFIC,
    as_of,
    is_offered,
    newest_baseline,
    next_planned_baseline_month,
    release_order,
)
from patching.rollback import INSTALL, REBOOT, UNINSTALL, RollbackOrder
from patching.selection import guard_for, select
from patching.terms import (
    HOTPATCH_TYPES,
    LCU_TYPES,
    Classification,
    HotpatchTrack,
    InstallationPlan,
    InstallationState,
    InstalledUpdate,
    OperationKind,
    Patch,
    PatchSettings,
    ProductLine,
    RebootBehavior,
    RebootSetting,
    Release,
    ReleaseType,
    RunStatus,
)
from patching.track import TrackVerdict, judge_track

NAMESPACE = UUID("2f1c1c7e-6a3b-5d0c-9d7e-0b5f4c3a2e10")
DEFENDER_KB = "2267602"
INSTALL_ERROR = "0x80070643"
# Lengths in simulated seconds.
ASSESSMENT_SECONDS = 180.0
LONGEST_ASSESSMENT = 1.2 * ASSESSMENT_SECONDS
REBOOT_SECONDS = 240.0
HANGING_REBOOT_SECONDS = 900.0
VERIFY_SECONDS = 30.0
DOWNLOAD_SHARE = 0.2  # of an update's whole time
# How long after the request (in real seconds) a passing misfortune lasts.
THROTTLED_FOR = timedelta(seconds=60)
ANSWER_LOST_FOR = timedelta(seconds=30)
_TAKES_STARTS = frozenset({"running", "starting", "unknown"})  # power states


# --- making one --------------------------------------------------------------------------------------------------


def make(conf: Mapping[str, object], catalogue: Catalogue, *, ledger: Ledger | None = None) -> Simulator:
    """A simulator of this configuration: `seed`, `catalogue_date` (None: today), `clock_factor`.

    The clock factor is how many simulated seconds pass in a real one. Raises ValueError naming what is wrong.
    """
    seed, day, factor = conf.get("seed", 1), conf.get("catalogue_date"), conf.get("clock_factor", 60.0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"seed must be a whole number, not {seed!r}")
    if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
        raise ValueError(f"catalogue_date must be a day or nothing, not {day!r}")
    if not isinstance(factor, (int, float)) or isinstance(factor, bool) or not 0 < factor < math.inf:
        raise ValueError(f"clock_factor must be a finite number above 0, not {factor!r}")
    return Simulator(catalogue=catalogue, seed=seed, catalogue_date=day, clock_factor=float(factor), ledger=ledger)


@dataclass(frozen=True, slots=True)
class _Machine:
    """What is on a machine at one moment."""

    line: ProductLine
    is_hotpatch_on: bool
    installed: tuple[InstalledUpdate, ...]
    os_build: str
    is_reboot_pending: bool

    @property
    def kbs(self) -> frozenset[str]:
        return frozenset(update.patch.kb_number for update in self.installed)


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
    """A connector whose machines are simulated. Thread-safe: it only remembers what it can work out again."""

    catalogue: Catalogue
    seed: int
    catalogue_date: date | None
    clock_factor: float
    ledger: Ledger | None = None
    assessment_seconds: float = ASSESSMENT_SECONDS  # how long one takes, about; 0: its answer is there at once
    is_patient: bool = False  # looks come when something ends, not every few seconds: for clocks that jump
    capabilities: frozenset[Capability] = frozenset(
        {
            Capability.IDEMPOTENT_START,
            Capability.FIND_BY_REQUEST,
            Capability.INSTALLED_UPDATES,
            Capability.FINAL_ASSESSMENT,
            Capability.UNINSTALL,
        }
    )
    _offers_known: dict[object, tuple[Patch, ...]] = field(default_factory=dict, compare=False, repr=False)
    _tracks_known: dict[object, TrackVerdict] = field(default_factory=dict, compare=False, repr=False)
    _patches_known: dict[tuple[str, str], Patch] = field(default_factory=dict, compare=False, repr=False)

    # --- the protocol

    def discover(self) -> Sequence[DiscoveredVm]:
        """A simulator has no inventory of its own."""
        return ()

    def start(self, requests: Sequence[StartRequest], *, now: datetime) -> Sequence[Started | ConnectorError]:
        """Take what a machine takes. The same request id answers again and starts nothing new."""
        return [self._start(request, now) for request in requests]

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
        return [self._observe(request, now) for request in requests]

    def apply_patch_settings(
        self, changes: Sequence[tuple[VmRef, PatchSettings]]
    ) -> Sequence[PatchSettings | ConnectorError]:
        """A simulated machine takes any settings."""
        return [settings for _vm, settings in changes]

    # --- starting

    def _refusal(self, request: StartRequest, now: datetime) -> ConnectorError | None:
        vm, wishes = request.vm, wishes_of(request.vm.tags)
        age = now - request.requested_at
        if _line(vm) is None:
            return ConnectorError("vm.unsupported", nothing_was_sent=True)
        if vm.power_state not in _TAKES_STARTS:
            return ConnectorError("vm.not_running", nothing_was_sent=True)
        if Misfortune.AGENT_NOT_READY in wishes:
            return ConnectorError("agent.not_ready", nothing_was_sent=True)
        if Misfortune.UNREACHABLE in wishes:
            return ConnectorError("connector.unreachable", is_retryable=True, nothing_was_sent=True)
        if Misfortune.THROTTLED in wishes and age < THROTTLED_FOR:
            return ConnectorError("connector.throttled", is_retryable=True, nothing_was_sent=True, retry_after=30)
        if Misfortune.LOST_ANSWER in wishes and age < ANSWER_LOST_FOR:
            return ConnectorError("connector.timeout", is_retryable=True)
        return None

    # --- looking

    def _observe(self, request: ObserveRequest, now: datetime) -> Observation | ConnectorError:
        line = _line(request.vm)
        if line is None:
            return ConnectorError("vm.unsupported")
        elapsed = max(0.0, (now - request.started_at).total_seconds()) * self.clock_factor
        if Misfortune.SILENT in wishes_of(request.vm.tags):
            step = "assessing" if request.kind is OperationKind.ASSESSMENT else "downloading"
            return Observation(progress=Progress(step=step), look_again_after=600.0 if self.is_patient else 5.0)
        moment = as_of(self.catalogue_date, request.started_at)
        machine = self._machine(request.vm, line, moment)
        if request.kind is OperationKind.ASSESSMENT:
            return self._observe_assessment(request, machine, moment, elapsed)
        if request.rollback is not None:
            return self._observe_rollback(request, request.rollback, machine, moment, elapsed)
        if request.plan is None:
            return ConnectorError("connector.garbage", "an installation without a plan")
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
        self, request: ObserveRequest, machine: _Machine, moment: datetime, elapsed: float
    ) -> Observation:
        longest = 1.2 * self.assessment_seconds
        if elapsed < longest and elapsed < (length := longest * (2 + self._dice(request.vm, "assessment")) / 3):
            return Observation(
                progress=Progress(
                    step="assessing",
                    fraction=elapsed / length,
                    remaining_seconds=(length - elapsed) / self.clock_factor,
                ),
                look_again_after=self._look_again(length - elapsed),
            )
        return Observation(assessment=self._assessment(machine, moment))

    def _observe_rollback(
        self, request: ObserveRequest, order: RollbackOrder, machine: _Machine, moment: datetime, elapsed: float
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
            return Observation(assessment=self._assessment(self._rolled_back(request, order, machine), moment))
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

    def _rolled_back(self, request: ObserveRequest, order: RollbackOrder, machine: _Machine) -> _Machine:
        gone = set(order.uninstall_kbs)
        kept = [update for update in machine.installed if update.patch.kb_number not in gone]
        target = self.catalogue.release_by_kb.get((machine.line, order.target_kb))
        if order.must_install_target and target is not None and (patch := self.catalogue.patch_for(target)):
            kept.append(InstalledUpdate(self._simulated(patch), request.started_at.replace(microsecond=0)))
        return replace(machine, installed=tuple(kept), os_build=order.target_build, is_reboot_pending=False)

    def _assessment(self, machine: _Machine, moment: datetime) -> AssessmentResult:
        return AssessmentResult(
            status=RunStatus.SUCCEEDED,
            available=self._offers(machine, moment),
            is_reboot_pending=machine.is_reboot_pending,
            os_build=machine.os_build,
            installed=machine.installed,
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

    # --- a machine

    def _dice(self, vm: VmRef, word: str) -> float:
        """A number from 0 up to but not 1 that belongs to this machine and this question for ever."""
        digest = hashlib.blake2b(f"{self.seed}:{vm.arm_id}:{word}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53  # what a float holds exactly: 1 itself never comes

    def _machine(self, vm: VmRef, line: ProductLine, moment: datetime) -> _Machine:
        """What is on the machine: what is known of it, else what its build says, else what the seed gives it."""
        installed, build = vm.installed, vm.os_build
        if not installed:
            release = self._release_of_build(line, build) if build else self._seeded_release(vm, line, moment)
            installed = self._past_of(vm, line, release, moment)
            build = build or (release.build if release else "")
        return _Machine(line, vm.is_hotpatch_enabled, installed, build, vm.is_reboot_pending)

    def _release_of_build(self, line: ProductLine, build: str) -> Release | None:
        """The newest release that a machine of this build has."""
        order = build_order(build)
        older = [r for r in self._built[line] if build_order(r.build) <= order]
        return max(older, key=lambda r: build_order(r.build), default=None)

    @cached_property
    def _built(self) -> dict[ProductLine, list[Release]]:
        return {
            line: [r for r in releases if r.build and r.kb_number]
            for line, releases in self.catalogue.releases_by_line.items()
        }

    def _seeded_release(self, vm: VmRef, line: ProductLine, moment: datetime) -> Release | None:
        """Where a machine of unknown build stands: on track with a hotpatch to come, or a month or two behind."""
        out = sorted((r for r in self._built[line] if is_offered(r, moment)), key=release_order)
        baseline = newest_baseline(out, line, moment)
        if baseline is None:
            return None
        if vm.is_hotpatch_enabled:
            later = [r for r in out if r.type in HOTPATCH_TYPES and release_order(r) > release_order(baseline)]
            choices = [baseline, *later[:-1]]
        else:
            full = [r for r in out if r.type is ReleaseType.BASELINE or r.type in LCU_TYPES]
            choices = full[-3:-1] or full
        return choices[int(self._dice(vm, "build") * len(choices))]

    def _past_of(
        self, vm: VmRef, line: ProductLine, release: Release | None, moment: datetime
    ) -> tuple[InstalledUpdate, ...]:
        """What a machine at this release has installed: its baseline, the release itself, and an older .NET update."""
        if release is None:
            return ()
        past: list[tuple[Patch, date]] = []
        dot_net = self._dot_net(line, moment)
        if len(dot_net) > 1 and (older := dot_net[-2]).published_on is not None:
            past.append((older, older.published_on))
        if release.type in HOTPATCH_TYPES:
            before = [r for r in self._built[line] if r.type is ReleaseType.BASELINE]
            bases = [r for r in before if release_order(r) < release_order(release)]
            base = max(bases, key=release_order, default=None)
            if base is not None and (patch := self.catalogue.patch_for(base)):
                past.append((patch, base.released_on))
        if patch := self.catalogue.patch_for(release):
            past.append((patch, release.released_on))
        days = 1 + int(3 * self._dice(vm, "patch day"))
        return tuple(
            InstalledUpdate(
                self._simulated(patch),
                min(datetime.combine(day + timedelta(days=days), time(18, 30), UTC), moment),
            )
            for patch, day in past
        )

    # --- what Windows Update offers

    def _simulated(self, patch: Patch, version: str = "") -> Patch:
        """The patch with its simulated update id: a uuid5 of its catalogue key."""
        known = self._patches_known.get((patch.key, version))
        if known is None:
            known = replace(patch, update_id=str(uuid5(NAMESPACE, patch.key)), version=version or patch.version)
            self._patches_known[patch.key, version] = known
        return known

    def _track(self, machine: _Machine, moment: datetime) -> TrackVerdict:
        releases = self.catalogue.releases_by_line[machine.line]
        key = (machine.line, machine.is_hotpatch_on, machine.kbs, machine.os_build, _offer_period(moment))
        if key not in self._tracks_known:
            self._tracks_known[key] = judge_track(
                releases,
                machine.line,
                is_hotpatch_on=machine.is_hotpatch_on,
                installed_kbs=machine.kbs,
                os_build=machine.os_build,
                as_of=moment,
            )
        return self._tracks_known[key]

    def _offers(self, machine: _Machine, moment: datetime) -> tuple[Patch, ...]:
        """What Windows Update offers this machine; machines in the same situation share one tuple."""
        versions = tuple(
            update.patch.version for update in machine.installed if update.patch.kb_number in {MSRT_KB, DEFENDER_KB}
        )
        key = (
            machine.line,
            machine.is_hotpatch_on,
            machine.kbs,
            machine.os_build,
            machine.is_reboot_pending,
            versions,
            _offer_period(moment),
        )
        if key not in self._offers_known:
            self._offers_known[key] = tuple(self._make_offers(machine, moment))
        return self._offers_known[key]

    def _make_offers(self, machine: _Machine, moment: datetime) -> Iterable[Patch]:
        have = {update.patch.key: update.patch for update in machine.installed}
        for patch in (*self._os_offers(machine, moment), *self._dot_net(machine.line, moment)[-1:]):
            if patch.key not in have:
                yield self._simulated(patch)
        day = moment.astimezone(PACIFIC).date()
        for kb_number, version in ((MSRT_KB, f"{day:%Y.%m}"), (DEFENDER_KB, f"{day:%Y.%m.%d}")):
            rolling = self.catalogue.patch_by_key.get(f":{kb_number}")
            if rolling is not None:
                offered = self._simulated(rolling, version)
                if offered.key not in have or have[offered.key].version != version:
                    yield offered

    def _os_offers(self, machine: _Machine, moment: datetime) -> Iterable[Patch]:
        """The OS patches. A machine whose last one still waits for its reboot is offered none."""
        if self._awaits_os_patch(machine):
            return
        verdict = self._track(machine, moment)
        if verdict.track is HotpatchTrack.UNKNOWN:
            verdict = self._track(replace(machine, is_hotpatch_on=False), moment)
        if verdict.next_offer is not None and (patch := self.catalogue.patch_for(verdict.next_offer)):
            yield patch
        # Windows Update offered out-of-band cumulative updates to hotpatch machines too, and so took them off the train.
        if verdict.track is HotpatchTrack.ON_TRACK and verdict.baseline is not None:
            newer = [
                r
                for r in self.catalogue.releases_by_line[machine.line]
                if r.type is ReleaseType.OOB_LCU
                and is_offered(r, moment)
                and release_order(r) > release_order(verdict.baseline)
            ]
            newest = max(newer, key=release_order, default=None)
            if newest is not None and (patch := self.catalogue.patch_for(newest)):
                yield patch

    def _awaits_os_patch(self, machine: _Machine) -> bool:
        """Whether the reboot that is pending brings an OS patch: its build is newer than the one that runs.

        Any other pending reboot (of a .NET update) hides nothing: what is missing stays on offer.
        """
        return machine.is_reboot_pending and any(
            build_order(release.build) > build_order(machine.os_build)
            for kb_number in machine.kbs
            if (release := self.catalogue.release_by_kb.get((machine.line, kb_number))) is not None
        )

    def _dot_net(self, line: ProductLine, moment: datetime) -> list[Patch]:
        """The .NET updates of the line that are out, oldest first."""
        day = moment.astimezone(PACIFIC).date()
        return [p for p in self._dot_net_of[line] if p.published_on is not None and p.published_on <= day]

    @cached_property
    def _dot_net_of(self) -> dict[ProductLine, list[Patch]]:
        found = [p for p in self.catalogue.patches if ".NET" in p.title and p.published_on is not None]
        return {
            line: sorted(
                (p for p in found if p.product_line in {line, None}), key=lambda p: (p.published_on or date.min, p.key)
            )
            for line in ProductLine
        }

    # --- an installation

    def _run(self, request: ObserveRequest, plan: InstallationPlan, machine: _Machine, moment: datetime) -> _Run:
        """The whole run: what is installed when, whether it reboots, how it ends."""
        wishes = wishes_of(request.vm.tags)
        offers = self._offers(machine, moment)
        guard = guard_for(self._track(machine, moment), next_planned_baseline_month(moment))
        selection = select(offers, plan, guard=guard)
        queue = sorted(selection.selected, key=lambda v: _install_order(v.patch))
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
            length = self._seconds_for(request.vm, patch, plan, is_slow=is_slow)
            here, ends = clock + DOWNLOAD_SHARE * length, clock + length
            has_failed = is_wished(wishes, Misfortune.FAIL, patch)
            outcome = PatchOutcome(
                patch,
                InstallationState.FAILED if has_failed else InstallationState.INSTALLED,
                error_code=INSTALL_ERROR if has_failed else "",
                reason=verdict.reason,
            )
            outcomes[patch.key] = outcome
            stretches.append(_Stretch("downloading", clock, here, patch, index))
            stretches.append(_Stretch("installing", here, ends, patch, index, outcome))
            if not has_failed:
                installed.append((patch, ends))
            clock = ends
        return self._end(request, plan, machine, moment, queue_length=len(queue), stretches=stretches, outcomes=outcomes,
                         installed=installed, clock=clock, wishes=wishes)  # fmt: skip

    def _end(
        self,
        request: ObserveRequest,
        plan: InstallationPlan,
        machine: _Machine,
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
        after = self._after(
            request,
            machine,
            [(patch, at) for patch, at in installed if not is_wished(wishes, Misfortune.LIES, patch)],
            has_rebooted=will_reboot and not has_hung,
            is_reboot_outstanding=is_needed and (not will_reboot or has_hung),
        )
        result = InstallationResult(
            status=outcome.status,
            reboot_status=outcome.reboot_status,
            is_maintenance_window_exceeded=outcome.is_maintenance_window_exceeded,
            patches=tuple(outcomes.values()),
            error=ConnectorError(outcome.error_code) if outcome.error_code else None,
            final_assessment=None if has_hung else self._assessment(after, moment),
        )
        return _Run(tuple(stretches), queue_length, result)

    def _after(
        self,
        request: ObserveRequest,
        machine: _Machine,
        installed: Sequence[tuple[Patch, float]],
        *,
        has_rebooted: bool,
        is_reboot_outstanding: bool,
    ) -> _Machine:
        """The machine after the run. A build moves at once with a hotpatch, and with everything else at the reboot."""
        updates = {update.patch.key: update for update in machine.installed}
        for patch, at in installed:
            done_at = request.started_at + timedelta(seconds=at / self.clock_factor)
            updates[patch.key] = InstalledUpdate(patch, done_at.replace(microsecond=0))
        releases = [
            release
            for update in updates.values()
            if (release := self.catalogue.release_by_kb.get((machine.line, update.patch.kb_number))) and release.build
        ]
        live = [r.build for r in releases if has_rebooted or r.type in HOTPATCH_TYPES]
        return replace(
            machine,
            installed=tuple(updates.values()),
            os_build=max([machine.os_build, *live], key=build_order),
            is_reboot_pending=is_reboot_outstanding,
        )

    def _seconds_for(self, vm: VmRef, patch: Patch, plan: InstallationPlan, *, is_slow: bool) -> float:
        """How long an update takes, its download included, in simulated seconds.

        Never longer than the average that the window's arithmetic counts, so that a run does what its review said.
        """
        if is_slow:
            return plan.maximum_duration.total_seconds()
        share = self._dice(vm, patch.key)
        if patch.classification is Classification.DEFINITION:
            return 60 + 60 * share
        if patch.release_type in HOTPATCH_TYPES:
            return 240 + 120 * share
        return minutes_for(patch) * 60 * (0.6 + 0.4 * share)


# --- small rules -------------------------------------------------------------------------------------------------


def _line(vm: VmRef) -> ProductLine | None:
    """The machine's product line; where nobody knows it, what the image's SKU says."""
    if vm.product_line is not None:
        return vm.product_line
    sku = vm.image.sku.lower()
    return next((line for line in ProductLine if line.value.removeprefix("ws") in sku), None)


@lru_cache(maxsize=64)
def _offer_period(moment: datetime) -> tuple[date, bool]:
    """A stretch of time in which Windows Update offers the same: releases come at 10:00 Pacific time."""
    local = moment.astimezone(PACIFIC)
    return local.date(), local.time() >= OFFERED_FROM


def _install_order(patch: Patch) -> tuple[int, str]:
    """Definitions first, the OS last, as Windows Update does."""
    if patch.classification is Classification.DEFINITION:
        return 0, patch.key
    return (2 if patch.release_type is not None else 1), patch.key


def _needs_reboot(patch: Patch) -> bool:
    """Whether installing it really needs a reboot: of what may ask for one, .NET does and MSRT does not."""
    if patch.reboot_behavior is RebootBehavior.ALWAYS_REQUIRES_REBOOT:
        return True
    return patch.reboot_behavior is RebootBehavior.CAN_REQUEST_REBOOT and patch.kb_number != MSRT_KB
