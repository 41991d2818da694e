"""Reads of the inventory: the list with search and keyset paging, eligibility by the image catalogue, who may what."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.postgres.search import SearchQuery
from django.db import OperationalError, connection, transaction
from django.db.models import BooleanField, Exists, ExpressionWrapper, F, Func, JSONField, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThan, LessThan
from psycopg.errors import QueryCanceled

from patching.eligibility import Eligibility, catalog_index, judge_eligibility
from patching.orchestrator import Patcher, PatcherVerdict, who_patches
from patching.terms import (
    CatalogImage,
    HotpatchStatus,
    PatchMode,
    Platform,
    ScaleSetOrchestration,
    UpdateStatus,
)
from vms.choices import Role, Scope
from vms.lookups import array
from vms.models import (
    NAME_SEARCH,
    Connection,
    Grants,
    ImageCatalogEntry,
    ResourceGroup,
    RoleAssignment,
    Subscription,
    VirtualMachine,
    VirtualMachineQuerySet,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

PAGE_SIZE = 50
MAX_SELECTED = 1_000  # machines whose settings are changed at once, each with its row in the review
MAX_COUNT = 1_000  # also the number of search matches that are sorted


# --- who may what ------------------------------------------------------------------------------------------------


def owns_everything(user: User | AnonymousUser) -> bool:
    """Whether the user is Owner of everything: what importing VMs and assigning roles takes."""
    return any(grant.scope is Scope.EVERYTHING for grant in Grants.of(user).at_least(Role.OWNER))


def groups_owned_by(user: User) -> QuerySet[ResourceGroup]:
    """The resource groups in which the user may make VMs: Owner of the group, its subscription, or everything."""
    grants = Grants.of(user).at_least(Role.OWNER)
    groups = ResourceGroup.objects.select_related("subscription")
    if any(grant.scope is Scope.EVERYTHING for grant in grants):
        return groups
    return groups.filter(
        Q(pk__in=[grant.resource_group_id for grant in grants if grant.scope is Scope.RESOURCE_GROUP])
        | Q(subscription__in=[grant.subscription_id for grant in grants if grant.scope is Scope.SUBSCRIPTION])
    )


# --- eligibility -------------------------------------------------------------------------------------------------


def image_catalog() -> dict[tuple[str, str, str], CatalogImage]:
    """The image catalogue as the rules take it (one query)."""
    return catalog_index(entry.facts for entry in ImageCatalogEntry.objects.all())


def build_of_image(exact_version: str, version: str) -> str:
    """The OS build that an image version names ("20348.5074.260507"), empty if it names none."""
    return next((text for text in (exact_version, version) if text[:1].isdigit()), "")


def eligibilities_of(
    vms: Iterable[VirtualMachine], *, os_builds: Mapping[int, str] | None = None
) -> dict[int, Eligibility]:
    """Eligibility by VM id, judged by the catalogue as it is now: one query for any number of VMs.

    The VMs must come with their `connection`. `os_builds`: the builds that assessments found, by VM id; without
    one, the build that the image's version names.
    """
    catalog = image_catalog()
    builds = os_builds or {}
    return {
        vm.pk: judge_eligibility(
            vm.image,
            catalog,
            Platform(vm.connection.platform),
            scale_set_orchestration=ScaleSetOrchestration(vm.scale_set_orchestration),
            os_build=builds.get(vm.pk) or build_of_image(vm.image_exact_version, vm.image_version),
        )
        for vm in vms
    }


def eligibility_of(vm: VirtualMachine, *, os_build: str = "") -> Eligibility:
    """Eligibility of one VM by the catalogue as it is now."""
    return eligibilities_of([vm], os_builds={vm.pk: os_build})[vm.pk]


def was_assessed(update_status: str, hotpatch_status: str) -> bool:
    """Whether an assessment has ever told something about the VM, as far as its summary shows.

    Only an assessment leads to these values; "no updates data" is where a VM starts, and where one
    ends whose assessment has grown old. (When it happened is the business of the floor above.)
    """
    return update_status in {
        UpdateStatus.NO_UPDATES_AVAILABLE,
        UpdateStatus.UPDATES_AVAILABLE,
        UpdateStatus.REBOOT_REQUIRED,
    } or hotpatch_status in {HotpatchStatus.ENABLED, HotpatchStatus.DISABLED}


# --- who patches -------------------------------------------------------------------------------------------------


def connections_in_charge() -> Q:
    """What `Connection.is_portal_in_charge` says, for the database."""
    return Q(kind="simulator") | ~Q(platform=Platform.AZURE.value)


def patcher_of(vm: VirtualMachine, *, has_schedule: bool) -> PatcherVerdict:
    """Who patches this VM (loaded with its connection)."""
    return who_patches(
        patch_mode=PatchMode(vm.patch_mode),
        is_bypassing=vm.bypass_platform_safety_checks,
        has_schedule=has_schedule,
        is_portal_in_charge=vm.connection.is_portal_in_charge,
        has_agent=vm.provision_vm_agent,
    )


@cache
def _patchers() -> str:
    """The rule's answer to every combination of what it depends on, for the database to look up."""
    answers = {}
    for mode in PatchMode:
        for flags in product("ft", repeat=4):  # as PostgreSQL writes booleans
            is_bypassing, has_agent, is_portal_in_charge, has_schedule = (flag == "t" for flag in flags)
            verdict = who_patches(
                patch_mode=mode,
                is_bypassing=is_bypassing,
                has_schedule=has_schedule,
                is_portal_in_charge=is_portal_in_charge,
                has_agent=has_agent,
            )
            answers["".join((mode.value, *flags))] = verdict.patcher.value
    return json.dumps(answers)


def _patcher(is_scheduled: F) -> Func:
    """Who patches a VM, in the database."""
    in_charge = Q(connection__in=Connection.objects.filter(connections_in_charge()).order_by().values("pk"))
    facts = Func(
        "patch_mode",
        "bypass_platform_safety_checks",
        "provision_vm_agent",
        ExpressionWrapper(in_charge, output_field=BooleanField()),
        is_scheduled,
        function="concat",
        output_field=TextField(),
    )
    answers = Cast(Value(_patchers()), JSONField())
    return Func(answers, facts, template="(%(expressions)s)", arg_joiner=" ->> ", output_field=TextField())


def with_patchers(vms: VirtualMachineQuerySet, *, scheduled: Q | None = None) -> VirtualMachineQuerySet:
    """These VMs with `is_scheduled_now` and `patcher_now`: who patches each, judged afresh by the rule.

    `scheduled`: the VMs that an enabled maintenance configuration means. None: those of which it is recorded.
    """
    now = F("is_scheduled") if scheduled is None else ExpressionWrapper(scheduled, output_field=BooleanField())
    return vms.annotate(is_scheduled_now=now).annotate(patcher_now=_patcher(F("is_scheduled_now")))


def vms_patched_by(patcher: Patcher, vms: VirtualMachineQuerySet, *, scheduled: Q) -> VirtualMachineQuerySet:
    """Those of these VMs that `patcher` patches, judged afresh; see `with_patchers`."""
    return with_patchers(vms, scheduled=scheduled).filter(Q(patcher_now=patcher.value))


def with_stale_patchers(vms: VirtualMachineQuerySet, *, scheduled: Q | None = None) -> VirtualMachineQuerySet:
    """Those of these VMs whose recorded answer is not today's; see `with_patchers`.

    A VM's schedules are asked for once: where nothing changed in them, the answer follows from what is recorded of them.
    """
    judged = with_patchers(vms, scheduled=scheduled)
    return judged.exclude(Q(patcher=_patcher(F("is_scheduled"))) & Q(is_scheduled=F("is_scheduled_now")))


# --- what filters offer ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """What the list can be filtered by beyond fixed words: (id, name) pairs."""

    connections: tuple[tuple[str, str], ...]
    subscriptions: tuple[tuple[str, str], ...]


def vms_by_name(names: Collection[str]) -> dict[str, list[int]]:
    """The VMs that each of these means: a name, or resource group/name; in any case of letters (one query)."""
    wanted = {text: text.rpartition("/") for text in names}
    spellings = {spelled for _g, _s, name in wanted.values() for spelled in (name, name.lower(), name.upper())}
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    rows = (
        VirtualMachine.objects.filter(name__in=spellings)
        .order_by("pk")
        .values_list("name", "resource_group__name", "pk")
    )
    for name, group, pk in rows:
        found[name.lower()].append((group.lower(), pk))
    return {
        text: [pk for own, pk in found[name.lower()] if not slash or own == group.lower()]
        for text, (group, slash, name) in wanted.items()
    }


def filter_options(user: User) -> FilterOptions:
    """Connections and subscriptions to offer to this user, in one query; nothing of what the user may not see."""
    mine = RoleAssignment.objects.of(user)
    connections = Connection.objects.order_by()
    subscriptions = Subscription.objects.order_by()
    if not user.is_superuser:
        everything = mine.filter(scope=Scope.EVERYTHING)
        connections = connections.filter(Exists(mine))
        subscriptions = subscriptions.filter(
            Exists(everything)
            | Q(pk__in=mine.filter(subscription__isnull=False).values("subscription"))
            | Q(pk__in=mine.filter(resource_group__isnull=False).values("resource_group__subscription"))
            | Q(pk__in=mine.filter(vm__isnull=False).values("vm__resource_group__subscription"))
        )
    rows = sorted(
        connections.values_list(Value("connection"), "pk", "name").union(
            subscriptions.values_list(Value("subscription"), "pk", "name"), all=True
        ),
        key=lambda row: (row[2].lower(), row[1]),
    )
    return FilterOptions(
        connections=tuple((str(pk), name) for kind, pk, name in rows if kind == "connection"),
        subscriptions=tuple((str(pk), name) for kind, pk, name in rows if kind == "subscription"),
    )


# --- the list ----------------------------------------------------------------------------------------------------

# Each order is an index of the model read in one direction; the id makes it total.
ORDERS: dict[str, tuple[str, ...]] = {
    "name": ("name", "id"),
    "-name": ("-name", "-id"),
    "update_status": ("update_status", "name", "id"),
    "-update_status": ("-update_status", "-name", "-id"),
    "critical": ("critical_and_security_count", "-name", "-id"),
    "-critical": ("-critical_and_security_count", "name", "id"),
}
DEFAULT_ORDER = "name"


class ListTooSlowError(Exception):
    """The database gave up on a list query after `STATEMENT_TIMEOUT_MS`: ask the reader to narrow it down."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place between two rows of one order. Opaque in addresses; anything but our own text is no cursor."""

    order: str
    is_backward: bool
    values: tuple[str | int, ...]

    def __str__(self) -> str:
        text = json.dumps([self.order, self.is_backward, *self.values], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def at(cls, vm: VirtualMachine, order: str, *, is_backward: bool) -> Cursor:
        """The place after (or before) this VM."""
        names = (name.lstrip("-") for name in ORDERS[order])
        return cls(order, is_backward, tuple(getattr(vm, name) for name in names))

    @classmethod
    def parse(cls, text: str, order: str) -> Cursor | None:
        """The cursor that this text is, or None: then the list starts at its first page."""
        try:
            decoded = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            found_order, is_backward, *values = decoded
        except (ValueError, TypeError, RecursionError):
            return None
        kinds = tuple(str if name.lstrip("-") in {"name", "update_status"} else int for name in ORDERS[order])
        if found_order != order or not isinstance(is_backward, bool) or len(values) != len(kinds):
            return None
        if not all(type(value) is kind for value, kind in zip(values, kinds, strict=True)):
            return None
        if not all(_is_storable(value) for value in values):
            return None
        return cls(order, is_backward, tuple(values))


def _is_storable(value: str | int) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return "\x00" not in value and value.encode(errors="replace").decode() == value


@dataclass(frozen=True, slots=True)
class VmPage:
    """One page of the list. `count` stops at `MAX_COUNT`; beyond it `is_count_exact` is False."""

    vms: tuple[VirtualMachine, ...]
    count: int
    is_count_exact: bool
    is_search_cut: bool  # more matches than are sorted
    previous: str
    next: str


def search_by_name(vms: VirtualMachineQuerySet, words: str) -> VirtualMachineQuerySet:
    """VMs whose name has, for every word, a part (names are split at - _ .) that starts with it."""
    lexemes = [
        "'" + word.replace("\\", "\\\\").replace("'", "''") + "':*" for word in re.split(r"[-_.\s]+", words) if word
    ]
    if not lexemes:
        return vms
    query = SearchQuery(" & ".join(lexemes), search_type="raw", config="simple")
    return vms.annotate(name_search=NAME_SEARCH).filter(name_search=query)


def vm_page(vms: VirtualMachineQuerySet, *, words: str = "", order: str = DEFAULT_ORDER, cursor: str = "") -> VmPage:
    """One page of these (visible, filtered) VMs, in two statements whose cost does not grow with the page number.

    A search sorts no more than its first 1,000 matches. Raises `ListTooSlowError`.
    """
    place = Cursor.parse(cursor, order)
    found = search_by_name(vms.order_by(), words)
    candidates = found
    is_search = bool(words.strip())
    with _bounded(is_search=is_search):
        if is_search:
            ids = list(found.values_list("pk", flat=True)[: MAX_COUNT + 1])
            count = len(ids)
            candidates = VirtualMachine.objects.filter(pk__any=array(ids[:MAX_COUNT]))
        else:
            count = found.values("pk")[: MAX_COUNT + 1].count()
        rows = list(_rows_beyond(candidates, order, place))
    is_backward = place is not None and place.is_backward
    has_more = len(rows) > PAGE_SIZE
    rows = rows[:PAGE_SIZE]
    if is_backward:
        rows.reverse()
    has_previous = has_more if is_backward else place is not None
    has_next = is_backward or has_more
    return VmPage(
        vms=tuple(rows),
        count=min(count, MAX_COUNT),
        is_count_exact=count <= MAX_COUNT,
        is_search_cut=is_search and count > MAX_COUNT,
        previous=str(Cursor.at(rows[0], order, is_backward=True)) if rows and has_previous else "",
        next=str(Cursor.at(rows[-1], order, is_backward=False)) if rows and has_next else "",
    )


# What the list shows of a VM, of which there is much more.
_LISTED = (
    "name",
    "resource_group__name",
    "location",
    "connection__name",
    "power_state",
    "patcher",
    "update_status",
    "hotpatch_status",
    "hotpatch_track",
    "critical_and_security_count",
    "other_count",
)


def _rows_beyond(vms: VirtualMachineQuerySet, order: str, place: Cursor | None) -> VirtualMachineQuerySet:
    """The next rows from this place on, one more than a page holds; backwards, nearest first."""
    columns = ORDERS[order]
    if place is not None and place.is_backward:
        columns = tuple(name[1:] if name.startswith("-") else f"-{name}" for name in columns)
    rows = vms.select_related("connection", "resource_group").only(*_LISTED).order_by(*columns)
    if place is None:
        return rows[: PAGE_SIZE + 1]
    if len({name.startswith("-") for name in columns}) == 1:
        return rows.filter(_beyond(columns, place.values))[: PAGE_SIZE + 1]
    # PostgreSQL compares rows in one direction only. Two ranges of the same index, first the ties, then the rest,
    # instead of an OR that would walk through all ties of a common count.
    first, *rest = columns
    head, *tail = place.values
    ordered = vms.order_by(*columns)
    ties = ordered.filter(**{first.lstrip("-"): head}).filter(_beyond(tuple(rest), tuple(tail)))
    beyond = ordered.filter(_beyond((first,), (head,)))
    limit = PAGE_SIZE + 1
    return rows.filter(pk__in=ties.values("pk")[:limit].union(beyond.values("pk")[:limit], all=True))[:limit]


def _beyond(columns: tuple[str, ...], values: tuple[str | int, ...]) -> GreaterThan | LessThan:
    """`(a, b) > (x, y)`, or `<` where the columns descend: one index range, however many ties."""
    comparison = LessThan if columns[0].startswith("-") else GreaterThan
    return comparison(_row(*(F(name.lstrip("-")) for name in columns)), _row(*(Value(value) for value in values)))


def _row(*expressions: F | Value) -> Func:
    return Func(*expressions, template="(%(expressions)s)", output_field=TextField())


@contextmanager
def _bounded(*, is_search: bool) -> Iterator[None]:
    """Statements in here end after `STATEMENT_TIMEOUT_MS`.

    Scans neither join others half-way nor run in parallel: a search takes its first matches without sorting them,
    and must find the same ones on the next page. It then finds them by their keys and sorts them: to walk the index of
    the names until 51 of a thousand have come by looks cheap to PostgreSQL, and is the whole fleet for those at its end.
    """
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('statement_timeout', %s, true), set_config('synchronize_seqscans', 'off', true),"
                    " set_config('max_parallel_workers_per_gather', '0', true), set_config('enable_indexscan', %s, true)",
                    [str(settings.STATEMENT_TIMEOUT_MS), "off" if is_search else "on"],
                )
            yield
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise ListTooSlowError from error
        raise


# --- export ------------------------------------------------------------------------------------------------------

EXPORTED = (
    "name",
    "resource_group__subscription__name",
    "resource_group__name",
    "location",
    "connection__name",
    "power_state",
    "image_publisher",
    "image_offer",
    "image_sku",
    "patch_mode",
    "assessment_mode",
    "enable_hotpatching",
    "update_status",
    "critical_and_security_count",
    "other_count",
    "is_reboot_pending",
    "hotpatch_status",
    "hotpatch_track",
    "patcher",
    "arm_id",
)
EXPORT_BLOCK = 2_000


def csv_lines(vms: VirtualMachineQuerySet) -> Iterator[str]:
    """These VMs as CSV with a head, in blocks of lines: memory does not grow with the fleet.

    Field names and codes are the same in every language, for scripts. A text that a spreadsheet would take for a formula
    gets an apostrophe.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(name.replace("__name", "").replace("resource_group__", "") for name in EXPORTED)
    for number, row in enumerate(vms.order_by("name", "pk").values_list(*EXPORTED).iterator(EXPORT_BLOCK), start=1):
        writer.writerow(_harmless(value) for value in row)
        if number % EXPORT_BLOCK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
