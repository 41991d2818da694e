"""What the pages show of one VM, judged as of now: two queries for the VM and who may do what, four for the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db.models import CharField, Exists, Func, JSONField, Q

from connectors.protocol import AssessmentSource, Capability
from patching import terms
from patching.eligibility import Eligibility, EligibilityVerdict
from patching.forecast import MonthForecast, Outlook, forecast_reboots
from patching.freezes import Hold as FreezeHold
from patching.lifecycle import IN_FLIGHT
from patching.orchestrator import Patcher, PatcherVerdict
from patching.releases import as_of
from patching.rollback import RollbackOrder, RollbackRefusal, plan_rollback
from patching.selection import Guard, Hold, guard_for
from patching.status import StaleCause, why_stale
from patching.terms import (
    CRITICAL_AND_SECURITY,
    AssessmentMode,
    HotpatchStatus,
    HotpatchTrack,
    OperationKind,
    OperationState,
    UpdateStatus,
)
from patching.track import TrackVerdict
from updates.models import Operation, Patch, Release
from updates.payloads import readable
from updates.selectors.automation import (
    ASSESSMENT_PERIOD,
    SCHEDULE_ROWS,
    ScheduleOf,
    rows_meaning,
    schedules_meaning,
)
from updates.selectors.decisions import waiting_on
from updates.selectors.freezes import freezes_near, hold_ahead
from updates.selectors.installed import is_listed_by_get_hotfix
from updates.selectors.polling import poll_seconds
from updates.selectors.waits import StartWait, start_wait
from updates.selectors.words import Standing, judge_standing
from vms.access import access_or_404
from vms.choices import PowerState, Role
from vms.models import VirtualMachine
from vms.selectors import eligibility_of, patcher_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

FORECAST_MONTHS = 6
YEAR_AHEAD = 10  # months, with the present one
HISTORY_DAYS = 30
MAX_HISTORY = 500
NEWS = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class InstalledRow:
    """One installed update. `operation_id` where the portal installed it."""

    kb_number: str
    title: str
    version: str
    classification: str
    installed_on: datetime
    operation_id: UUID | None

    @property
    def is_listed_by_get_hotfix(self) -> bool:
        """Whether Get-HotFix on the machine lists it."""
        return is_listed_by_get_hotfix(kb_number=self.kb_number, title=self.title, classification=self.classification)


@dataclass(frozen=True, slots=True)
class AvailableRow:
    """One available update: who installs it by itself (None: nobody), and why the guard would leave it out.

    `is_presumed_baseline`: its KB is not recorded, and it is taken for the baseline that the catalogue lacks: it reboots.
    """

    patch: terms.Patch
    automatic: Patcher | None
    hold: Hold | None
    is_presumed_baseline: bool

    @property
    def is_eligible(self) -> bool:
        """Whether automatic guest patching installs it."""
        return self.automatic in _BY_CLASS

    @property
    def is_recommended(self) -> bool:
        """Whether it is Critical or Security: what the Recommended updates tab lists."""
        return self.patch.classification in CRITICAL_AND_SECURITY


@dataclass(frozen=True, slots=True)
class VmPicture:
    """One VM with everything the rules say about it at this moment.

    The words that lists show and filter by (update status, hotpatch status, `track_word`) are the stored ones, so that
    all pages agree; `track` is judged now and tells their facts where it comes to the same word.
    """

    vm: VirtualMachine
    roles: frozenset[Role]
    eligibility: Eligibility
    hotpatch_status: HotpatchStatus
    track: TrackVerdict
    track_word: HotpatchTrack
    update_status: UpdateStatus
    now: datetime
    as_of: datetime
    available: tuple[AvailableRow, ...]
    installed: tuple[InstalledRow, ...]
    operations: tuple[Operation, ...]
    freeze: FreezeHold | None  # what holds it, or soon does
    start_wait: StartWait | None  # what a budget still makes the last of what is queued wait
    guard: Guard
    year_ahead: tuple[MonthForecast, ...]
    last_assessed_at: datetime | None
    is_assessed_elsewhere: bool  # the last assessment was taken over: no operation of this portal made it
    os_build: str
    error_code: str
    is_awaiting_assessment: bool
    is_list_complete: bool  # of what is installed
    patcher: PatcherVerdict  # who patches this VM without anybody asking for it
    releases: tuple[terms.Release, ...]
    line: terms.ProductLine | None

    @property
    def may_operate(self) -> bool:
        """Whether the reader may assess, install and cancel."""
        return Role.OPERATOR in self.roles

    @property
    def told(self) -> TrackVerdict | None:
        """What the rules say of the track; None while the stored word is another (it follows within a minute)."""
        return self.track if self.track.track is self.track_word else None

    @property
    def held_kbs(self) -> tuple[str, ...]:
        """What is held back on this VM since a rollback."""
        return tuple(self.vm.held_kbs)  # type: ignore[attr-defined]  # annotated by load_picture

    @property
    def rollback(self) -> RollbackOrder | RollbackRefusal:
        """The way back, or why there is none."""
        if not self.can_uninstall:
            return RollbackRefusal.NOT_SUPPORTED
        if self.last_assessed_at is None:
            return RollbackRefusal.UNKNOWN_STATE
        kbs = frozenset(row.kb_number for row in self.installed)
        return plan_rollback(
            self.releases,
            self.line,
            installed_kbs=kbs,
            os_build=self.os_build,
            is_list_complete=self.is_list_complete,
            as_of=self.as_of,
        )

    @property
    def can_uninstall(self) -> bool:
        """Whether the connector of the VM can roll it back."""
        return Capability.UNINSTALL in self.vm.connection.capabilities

    @property
    def can_restart(self) -> bool:
        """Whether a reboot is pending that the connector of the VM can carry out by itself."""
        return self.vm.is_reboot_pending and Capability.RESTART in self.vm.connection.capabilities

    @property
    def schedules(self) -> list[ScheduleOf]:
        """The maintenance configurations that mean this VM with their next windows, the next first."""
        return schedules_meaning(self.vm, now=self.now)

    @property
    def next_assessment_at(self) -> datetime | None:
        """When the periodic assessment is due; None where there is none."""
        if self.vm.assessment_mode != AssessmentMode.AUTOMATIC_BY_PLATFORM or self.last_assessed_at is None:
            return None
        return self.last_assessed_at + ASSESSMENT_PERIOD

    @property
    def stale_cause(self) -> StaleCause | None:
        """Why what is shown of this VM is old; None while it is fresh, or was never known."""
        if self.last_assessed_at is None:
            return None
        return why_stale(
            self.now - self.last_assessed_at,
            has_failed=bool(self.error_code),
            is_running=self.vm.power_state in {PowerState.RUNNING, PowerState.UNKNOWN},
            is_paused=self.paused_until is not None,
            is_periodic=self.next_assessment_at is not None,
        )

    @property
    def may_own(self) -> bool:
        """Whether the reader may change settings."""
        return Role.OWNER in self.roles

    @property
    def catalogue_date(self) -> date | None:
        """The day that the connection's catalogue is of; None: today."""
        return self.vm.connection.catalogue_date

    @property
    def paused_until(self) -> datetime | None:
        """Until when nothing is started through the connection; None where it is not paused."""
        until = self.vm.connection.paused_until
        return until if until is not None and until > self.now else None

    @property
    def patches(self) -> tuple[terms.Patch, ...]:
        """The available patches as the rules take them."""
        return tuple(row.patch for row in self.available)

    @property
    def recommended(self) -> tuple[AvailableRow, ...]:
        """The Critical and Security updates that are available now."""
        return tuple(row for row in self.available if row.is_recommended)

    def plan_of(self, operation_id: str, *, without: Collection[str] = ()) -> terms.InstallationPlan | None:
        """The plan of this installation of the last 30 days; None where the VM has none of this id.

        `without`: KBs that it excludes besides, whatever it named before.
        """
        found = next(
            (o for o in self.operations if str(o.pk) == operation_id and o.kind == OperationKind.INSTALLATION), None
        )
        payload = readable(found.kind, found.payload) if found is not None else None
        if not isinstance(payload, terms.InstallationPlan):
            return None
        added = [kb for kb in without if kb not in payload.kb_numbers_to_exclude]
        return replace(
            payload,
            kb_numbers_to_include=tuple(kb for kb in payload.kb_numbers_to_include if kb not in without),
            kb_numbers_to_exclude=(*payload.kb_numbers_to_exclude, *added),
        )

    @property
    def way_back_kbs(self) -> tuple[str, ...]:
        """What brings a machine back on the train, in order."""
        return tuple(release.kb_number for release in self.track.way_back)

    @property
    def forecast(self) -> tuple[MonthForecast, ...]:
        """The next months, as far as the table of the Updates page goes."""
        return self.year_ahead[:FORECAST_MONTHS]

    @property
    def next_reboot(self) -> MonthForecast | None:
        """The first month that brings a reboot, None where the forecast sees none."""
        return next((month for month in self.forecast if month.causes), None)

    @property
    def is_forecast_known(self) -> bool:
        """Whether every month of the forecast is known."""
        return all(month.outlook is not Outlook.NOT_KNOWN for month in self.forecast)

    @property
    def missing_months(self) -> tuple[date, ...]:
        """The months whose release is out by the calendar and not recorded, as far as they matter to this VM."""
        return self.track.missing_months if self.eligibility.verdict is EligibilityVerdict.ELIGIBLE else ()

    @property
    def waiting_kbs(self) -> list[str]:
        """What is offered to this VM and waits for a decision."""
        return waiting_on(self.available)

    @property
    def open_operations(self) -> tuple[Operation, ...]:
        """What is queued or running, running first."""
        running = [o for o in self.operations if not o.is_ended]
        return tuple(sorted(running, key=lambda o: o.state not in set(IN_FLIGHT)))

    @property
    def poll_seconds(self) -> int:
        """How long the page waits before it looks again at what is open."""
        newest = max((o.created_at for o in self.open_operations), default=self.now)
        return poll_seconds(newest, self.now)

    @property
    def open_installation(self) -> Operation | None:
        """The installation that is queued or running, if there is one."""
        return next((o for o in self.open_operations if o.kind != OperationKind.ASSESSMENT), None)

    @property
    def last_assessment(self) -> Operation | None:
        """The newest assessment that ended."""
        ended = (o for o in self.operations if o.is_ended and o.kind == OperationKind.ASSESSMENT)
        return next((o for o in ended if o.state != OperationState.CANCELLED), None)

    @property
    def is_freshly_assessed(self) -> bool:
        """Whether the newest assessment ended within the last minutes, so that its end is still news."""
        last = self.last_assessment
        return last is not None and last.finished_at is not None and self.now - last.finished_at < NEWS

    @property
    def latest_contradiction(self) -> Operation | None:
        """The newest installation, if a later look contradicted it."""
        newest = next((o for o in self.operations if o.kind == OperationKind.INSTALLATION and o.is_ended), None)
        return newest if newest is not None and newest.verification == terms.Verification.CONTRADICTED else None


# Subqueries of a VM's row, written out: to put them together anew takes Django an eighth of the page's time.
_INSTALLED = Func(
    template="""ARRAY(
        SELECT jsonb_build_object(
            'kb_number', patch.kb_number, 'title', patch.title, 'classification', patch.classification,
            'version', installed.version, 'installed_on', installed.installed_on, 'operation_id', installed.installed_by_id
        )
        FROM updates_installedpatch installed JOIN updates_patch patch ON patch.id = installed.patch_id
        WHERE installed.vm_id = vms_virtualmachine.id
        ORDER BY installed.installed_on DESC, patch.published_on DESC, patch.id
    )""",
    output_field=ArrayField(JSONField()),
)
_HELD = Func(
    template="ARRAY(SELECT kb_number FROM updates_kbhold WHERE vm_id = vms_virtualmachine.id ORDER BY kb_number)",
    output_field=ArrayField(CharField()),
)


def load_picture(user: User | AnonymousUser, pk: int, *, now: datetime, role: Role = Role.READER) -> VmPicture:
    """Everything the pages show of one VM. 404 if the user may not see it, 403 without the role."""
    vms = VirtualMachine.objects.select_related("update_state").annotate(
        installed_rows=_INSTALLED,
        schedule_rows=SCHEDULE_ROWS,
        held_kbs=_HELD,
        is_freeze_near=Exists(freezes_near(now)),
    )
    access = access_or_404(user, pk, role, vms=vms)
    return _picture(access.vm, access.roles, now)


def _picture(vm: VirtualMachine, roles: frozenset[Role], now: datetime) -> VmPicture:
    state = getattr(vm, "update_state", None)
    os_build = state.os_build if state else ""
    last_assessed_at = state.last_assessed_at if state else None
    eligibility = eligibility_of(vm, os_build=os_build)
    line = eligibility.product_line
    releases = Release.objects.filter(product_line=line).facts() if line else []
    patches = (
        [row.facts for row in Patch.objects.filter(memberships__patch_set=state.patch_set_id)]
        if state and state.patch_set_id
        else []
    )
    # Nothing is recommended from another line than the one that runs.
    patches = [patch for patch in patches if patch.product_line in {None, line}]
    installed = tuple(_installed_row(row) for row in vm.installed_rows)  # type: ignore[attr-defined]
    moment = as_of(vm.connection.catalogue_date, now)
    track = judge_standing(
        releases,
        Standing(
            eligibility=eligibility,
            is_hotpatch_enabled=vm.enable_hotpatching,
            installed_kbs=frozenset(row.kb_number for row in installed),
            is_list_complete=bool(state and state.is_list_complete),
            os_build=os_build,
            is_reboot_pending=vm.is_reboot_pending,
            was_assessed=last_assessed_at is not None,
            is_ready=state is None or state.is_ready_for_hotpatches,
        ),
        moment,
    )
    guard = guard_for(track, releases, line, moment)
    patcher = patcher_of(vm, has_schedule=any(True for _row in rows_meaning(vm)))
    operations = _operations(vm, now)
    is_waiting = any(operation.state == OperationState.QUEUED for operation in operations)
    return VmPicture(
        vm=vm,
        roles=roles,
        eligibility=eligibility,
        hotpatch_status=HotpatchStatus(vm.hotpatch_status),
        track=track,
        track_word=HotpatchTrack(vm.hotpatch_track),
        update_status=UpdateStatus(vm.update_status),
        now=now,
        as_of=moment,
        available=_available(patches, patcher.patcher, guard),
        patcher=patcher,
        installed=installed,
        operations=operations,
        freeze=hold_ahead(vm.pk, now=now) if vm.is_freeze_near else None,  # type: ignore[attr-defined]  # annotated
        start_wait=start_wait(Operation.objects.filter(vm=vm), now=now) if is_waiting else None,
        guard=guard,
        year_ahead=forecast_reboots(
            releases,
            line,
            track,
            patches,
            is_reboot_pending=vm.is_reboot_pending,
            as_of=moment,
            months=YEAR_AHEAD,
            reboot_setting=terms.RebootSetting(vm.reboot_setting),
            patcher=patcher.patcher,
            guard=guard,
        ),
        releases=tuple(releases),
        line=line,
        last_assessed_at=last_assessed_at,
        is_assessed_elsewhere=state is not None and state.assessment_source != AssessmentSource.PORTAL,
        os_build=os_build,
        error_code=state.error_code if state else "",
        is_awaiting_assessment=bool(state and state.is_awaiting_assessment),
        is_list_complete=bool(state and state.is_list_complete),
    )


def _installed_row(row: Mapping[str, Any]) -> InstalledRow:
    operation_id = row["operation_id"]
    return InstalledRow(
        kb_number=row["kb_number"],
        title=row["title"],
        version=row["version"],
        classification=row["classification"],
        installed_on=datetime.fromisoformat(row["installed_on"]),
        operation_id=UUID(operation_id) if operation_id else None,
    )


_CLASS_ORDER = tuple(terms.Classification)
# Automatic guest patching installs Critical and Security only, and goes by what Windows Update offers a hotpatch machine:
# never what takes it off the train.
_BY_CLASS = frozenset({Patcher.PLATFORM, Patcher.PORTAL_AUTOMATICALLY})


def _available(patches: Sequence[terms.Patch], patcher: Patcher, guard: Guard) -> tuple[AvailableRow, ...]:
    """The available patches, the most urgent class first, the newest first within a class."""
    is_by_class = patcher in _BY_CLASS
    is_baseline_offered = guard.is_baseline_among(patches)
    ordered = sorted(
        patches,
        key=lambda patch: (
            _CLASS_ORDER.index(patch.classification),
            -(patch.published_on or date.min).toordinal(),
            patch.kb_number,
        ),
    )
    return tuple(
        AvailableRow(
            patch=patch,
            automatic=None
            if patcher is Patcher.NOBODY
            or hold is not None
            or (is_by_class and patch.classification not in CRITICAL_AND_SECURITY)
            else patcher,
            hold=hold,
            is_presumed_baseline=guard.presumes(patch),
        )
        for patch, hold in ((p, guard.holds(p, is_baseline_offered=is_baseline_offered)) for p in ordered)
    )


def _operations(vm: VirtualMachine, now: datetime) -> tuple[Operation, ...]:
    """The operations of the last 30 days and every open one, the newest first."""
    since = now - timedelta(days=HISTORY_DAYS)
    rows = Operation.objects.filter(Q(created_at__gte=since) | Q(next_step_at__isnull=False), vm=vm)
    return tuple(rows.select_related("requested_by").order_by("-created_at", "-pk")[:MAX_HISTORY])
