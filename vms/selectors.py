"""Reads of the inventory: the list with search and keyset paging, eligibility by the image catalogue, who may what."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.search import SearchQuery
from django.core.exceptions import EmptyResultSet
from django.db import OperationalError, connection
from django.db.models import (
    BooleanField,
    Exists,
    ExpressionWrapper,
    F,
    Func,
    IntegerField,
    JSONField,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    TextField,
    Value,
)
from django.db.models.functions import Cast
from django.db.models.lookups import GreaterThan, LessThan
from django.utils.translation import get_language
from psycopg.errors import QueryCanceled

from connectors.registry import kinds_that_leave_patching_to_the_portal
from db.arrays import array
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
from ui.spreadsheet import BYTE_ORDER_MARK, harmless
from vms.choices import (
    HOTPATCH_STATUSES,
    HOTPATCH_TRACKS,
    PATCHERS,
    POWER_STATES,
    UPDATE_STATUSES,
    Role,
)
from vms.models import (
    NAME_SEARCH,
    Connection,
    Grants,
    ImageCatalogEntry,
    ResourceGroup,
    VirtualMachine,
    VirtualMachineQuerySet,
    WordCount,
)

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

PAGE_SIZE = 50
MAX_SELECTED = 1_000  # machines whose settings are changed at once, each with its row in the review
MAX_COUNT = 1_000  # also the number of search matches that are sorted


# --- who may what ------------------------------------------------------------------------------------------------


def owns_everything(user: User | AnonymousUser) -> bool:
    """Whether the user is Owner of everything: what importing VMs and assigning roles takes."""
    return Grants.of(user).at_least(Role.OWNER).are_of_everything


def groups_owned_by(user: User) -> QuerySet[ResourceGroup]:
    """The resource groups in which the user may make VMs: Owner of the group, its subscription, or everything."""
    grants = Grants.of(user).at_least(Role.OWNER)
    groups = ResourceGroup.objects.select_related("subscription")
    if grants.are_of_everything:
        return groups
    return groups.filter(Q(pk__in=grants.group_ids) | Q(subscription__in=grants.subscription_ids))


def may_create_vms(grants: Grants) -> bool:
    """Whether these grants let one make VMs in some resource group: Owner of a group, a subscription, or everything."""
    owned = grants.at_least(Role.OWNER)
    return owned.are_of_everything or bool(owned.group_ids or owned.subscription_ids)


def connections_owned_by(user: User) -> QuerySet[Connection]:
    """The connections behind which the user may put VMs: Owners of everything choose from all.

    Others choose from those behind which a VM of a subscription or resource group is that they own as a whole. Who owns
    single VMs leaves them where they are.
    """
    grants = Grants.of(user).at_least(Role.OWNER)
    rows = Connection.objects.order_by("name")
    if grants.are_of_everything:
        return rows
    behind = VirtualMachine.objects.order_by().filter(
        connection_id=OuterRef("pk"), resource_group__in=groups_owned_by(user).order_by().values("pk")
    )
    return rows.filter(Exists(behind))


# --- eligibility -------------------------------------------------------------------------------------------------


def image_catalog() -> dict[tuple[str, str, str], CatalogImage]:
    """The image catalogue as the rules take it (one query)."""
    return catalog_index(entry.facts for entry in ImageCatalogEntry.objects.all())


def build_of_image(exact_version: str, version: str, reported: str = "") -> str:
    """The OS build that an inventory reported, else the one that an image version names ("20348.5074.260507")."""
    return next((text for text in (reported, exact_version, version) if text[:1].isdigit()), "")


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
            os_build=builds.get(vm.pk) or build_of_image(vm.image_exact_version, vm.image_version, vm.os_build),
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
    return Q(kind__in=kinds_that_leave_patching_to_the_portal()) | ~Q(platform=Platform.AZURE.value)


def patcher_of(vm: VirtualMachine, *, has_schedule: bool) -> PatcherVerdict:
    """Who patches this VM (loaded with its connection)."""
    return who_patches(
        patch_mode=PatchMode(vm.patch_mode),
        is_bypassing=vm.bypass_platform_safety_checks,
        has_schedule=has_schedule,
        is_portal_in_charge=vm.connection.is_portal_in_charge,
        is_automatic_on=vm.connection.is_patching_automatically,
        has_agent=vm.provision_vm_agent,
    )


@cache
def _patchers() -> str:
    """The rule's answer to every combination of what it depends on, for the database to look up."""
    answers = {}
    for mode in PatchMode:
        for flags in product("ft", repeat=5):  # as PostgreSQL writes booleans
            is_bypassing, has_agent, is_portal_in_charge, is_automatic_on, has_schedule = (
                flag == "t" for flag in flags
            )
            verdict = who_patches(
                patch_mode=mode,
                is_bypassing=is_bypassing,
                has_schedule=has_schedule,
                is_portal_in_charge=is_portal_in_charge,
                is_automatic_on=is_automatic_on,
                has_agent=has_agent,
            )
            answers["".join((mode.value, *flags))] = verdict.patcher.value
    return json.dumps(answers)


def _patcher(is_scheduled: F) -> Func:
    """Who patches a VM, in the database."""
    in_charge = Q(connection__in=Connection.objects.filter(connections_in_charge()).order_by().values("pk"))
    automatic = Q(connection__in=Connection.objects.filter(is_patching_automatically=True).order_by().values("pk"))
    facts = Func(
        "patch_mode",
        "bypass_platform_safety_checks",
        "provision_vm_agent",
        ExpressionWrapper(in_charge, output_field=BooleanField()),
        ExpressionWrapper(automatic, output_field=BooleanField()),
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


# The machines that each text may mean by its last part: found by the words of the name, in any case of letters.
_BY_NAME = """
SELECT w.text, m.id, g.name, s.name, s.subscription_id::text
FROM unnest(%s::text[], %s::text[]) AS w(text, name)
JOIN vms_virtualmachine m ON {search} @@ plainto_tsquery('simple', regexp_replace(w.name, '[-_.]', ' ', 'g'))
    AND lower(m.name) = lower(w.name)
JOIN vms_resourcegroup g ON g.id = m.resource_group_id JOIN vms_subscription s ON s.id = g.subscription_id
ORDER BY m.id
"""
_NAME_SEARCH = "to_tsvector('simple'::regconfig, COALESCE(regexp_replace(m.name, '[-_.]', ' ', 'g'), ''))"


def vms_by_name(names: Collection[str]) -> dict[str, list[int]]:
    """The VMs that each of these means, in any case of letters (two queries).

    A text is a name, resource group/name, subscription/resource group/name (the subscription by name or id), or the
    resource id.
    """
    texts = [text for text in names if "\x00" not in text]
    found: dict[str, list[int]] = {text: [] for text in names}
    ids = {text: text.lower().rstrip("/") for text in texts if text.startswith("/")}
    pks = dict(VirtualMachine.objects.filter(arm_id__in=ids.values()).order_by().values_list("arm_id", "pk"))
    for text, arm_id in ids.items():
        found[text] = [pks[arm_id]] if arm_id in pks else []
    wanted = {text: [part.strip() for part in text.rsplit("/", 2)] for text in texts if text not in ids}
    if not wanted:
        return found
    with connection.cursor() as cursor:
        sql = _BY_NAME.replace("{search}", _NAME_SEARCH)
        cursor.execute(sql, [list(wanted), [parts[-1] for parts in wanted.values()]])
        rows = cursor.fetchall()
    for text, pk, group, subscription, subscription_id in rows:
        *places, _name = (part.lower() for part in wanted[text])
        is_meant = not places or (
            places[-1] == group.lower() and places[:-1] in ([], [subscription.lower()], [subscription_id])
        )
        if is_meant:
            found[text].append(pk)
    return found


def shortest_names(vm_ids: Collection[int]) -> list[str]:
    """How to write each of these VMs so that nothing else is meant: group/name, with its subscription, or its id."""
    rows = list(
        VirtualMachine.objects.filter(pk__any=array(vm_ids))
        .order_by("resource_group__name", "name", "pk")
        .values_list("pk", "arm_id", "name", "resource_group__name", "resource_group__subscription__name")
    )
    ways = {pk: (f"{group}/{name}", f"{sub}/{group}/{name}", arm_id) for pk, arm_id, name, group, sub in rows}
    meant = vms_by_name({text for texts in ways.values() for text in texts})
    return [next((text for text in texts if meant[text] == [pk]), texts[-1]) for pk, texts in ways.items()]


# What is offered: the connections and subscriptions of what the grants lead to.
_OFFERED = """
WITH places AS MATERIALIZED (
    SELECT ARRAY(
        SELECT id FROM vms_resourcegroup
        WHERE id = ANY(%(groups)s::bigint[]) OR subscription_id = ANY(%(subscriptions)s::bigint[])
    ) AS groups
)
SELECT true, c.id, c.name FROM vms_connection c
WHERE %(everything)s OR EXISTS (
    SELECT FROM vms_virtualmachine v
    WHERE v.connection_id = c.id AND v.resource_group_id = ANY((SELECT groups FROM places)::bigint[])
) OR EXISTS (SELECT FROM vms_virtualmachine v WHERE v.connection_id = c.id AND v.id = ANY(%(vms)s::bigint[]))
UNION ALL
SELECT false, id, name FROM vms_subscription
WHERE %(everything)s OR id = ANY(%(subscriptions)s::bigint[]) OR id IN (
    SELECT subscription_id FROM vms_resourcegroup
    WHERE id = ANY(%(groups)s::bigint[])
    OR id IN (SELECT resource_group_id FROM vms_virtualmachine WHERE id = ANY(%(vms)s::bigint[]))
)
"""


def filter_options(grants: Grants) -> FilterOptions:
    """Connections and subscriptions to offer to whom these were granted, in one query; nothing of what may not be seen."""
    if not grants.rows:
        return FilterOptions((), ())
    places: dict[str, str | bool] = {
        "everything": grants.are_of_everything,
        "subscriptions": array(grants.subscription_ids),
        "groups": array(grants.group_ids),
        "vms": array(grants.vm_ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(_OFFERED, places)
        rows = sorted(cursor.fetchall(), key=lambda row: (row[2].lower(), row[1]))
    return FilterOptions(
        connections=tuple((str(pk), name) for is_connection, pk, name in rows if is_connection),
        subscriptions=tuple((str(pk), name) for is_connection, pk, name in rows if not is_connection),
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
    def at(cls, vm: ListedVm, order: str, *, is_backward: bool) -> Cursor:
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


class ListedVm(NamedTuple):
    """What the list shows of a VM: a fifth of its columns, and the words for its values in the reader's language."""

    id: int
    name: str
    critical_and_security_count: int
    other_count: int
    resource_group: str
    location: str
    connection: str
    desired_settings: Any  # None: it has the settings that it shall have
    update_status: str
    hotpatch_status: str
    hotpatch_track: str
    power_state: str
    patcher: str
    update_status_label: str
    hotpatch_status_label: str
    hotpatch_track_label: str
    power_state_label: str
    patcher_label: str


_LABELLED = (UPDATE_STATUSES, HOTPATCH_STATUSES, HOTPATCH_TRACKS, POWER_STATES, PATCHERS)
_LISTED = (
    *("id", "name", "critical_and_security_count", "other_count"),
    *("resource_group__name", "location", "connection__name", "desired_settings"),
    *("update_status", "hotpatch_status", "hotpatch_track", "power_state", "patcher"),
)
# The same of the table itself.
_MATCHED = tuple(name.replace("__name", "_id") for name in _LISTED)


@cache
def _labels(_language: str | None) -> list[dict[str, str]]:
    """The words for the values of the last columns of `_LISTED`, in the language that is active."""
    return [{value: str(label) for value, label in choices} for choices in _LABELLED]


def _listed(rows: Iterable[tuple[Any, ...]]) -> list[ListedVm]:
    """These rows (of `_LISTED`) with their labels."""
    labels = _labels(get_language())
    return [
        ListedVm(*row, *(words.get(value, value) for words, value in zip(labels, row[-len(labels) :], strict=True)))
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class VmPage:
    """One page of the list. `count` stops at `MAX_COUNT`; beyond it `is_count_exact` is False."""

    vms: tuple[ListedVm, ...]
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
    """One page of these (visible, filtered) VMs, in one statement whose cost does not grow with the page number.

    A search sorts no more than its first 1,000 matches. Raises `ListTooSlowError`.
    """
    place = Cursor.parse(cursor, order)
    found = search_by_name(vms.order_by(), words)
    is_search = bool(words.strip())
    rows, count = _read(found, order, place, is_search=is_search)
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


def _read(
    found: VirtualMachineQuerySet, order: str, place: Cursor | None, *, is_search: bool
) -> tuple[list[ListedVm], int]:
    """The next rows from this place on, and how many there are in all, up to one more than are counted."""
    try:
        sql, params = page_sql(found, order, place, is_search=is_search)
    except EmptyResultSet:
        return [], 0
    rows = fetch_bounded(sql, params)
    if rows:
        return _listed(row[:-1] for row in rows), rows[0][-1]
    # Where the place lies behind the last row, nothing has said how many there are.
    return [], _read(found, order, None, is_search=is_search)[1] if place else 0


def page_sql(
    found: VirtualMachineQuerySet, order: str, place: Cursor | None, *, is_search: bool
) -> tuple[str, tuple[Any, ...]]:
    """What reads a page: its rows and one more, each followed by how many there are in all.

    Raises `EmptyResultSet` where it is known beforehand that there are none.
    """
    some = found[: MAX_COUNT + 1]
    if not is_search:
        count = Func(ArraySubquery(some.values("pk")), function="cardinality", output_field=IntegerField())
        return _rows_beyond(found, order, place, count=count).query.sql_with_params()
    # A search is sorted where its matches are at hand: for this statement they are the table. PostgreSQL would else walk
    # the index of the names until 51 of a thousand have come by, which is the whole fleet for those at its end.
    sql, params = some.values(*_MATCHED).query.sql_with_params()
    count = Func(template="(SELECT count(*) FROM matches)", output_field=IntegerField())
    rows, others = _rows_beyond(VirtualMachine.objects.all(), order, place, count=count).query.sql_with_params()
    table = f"SELECT * FROM matches LIMIT {MAX_COUNT}"  # noqa: S608 (ours)
    return f"WITH matches AS MATERIALIZED ({sql}), vms_virtualmachine AS ({table}) {rows}", (*params, *others)


def _rows_beyond(
    vms: VirtualMachineQuerySet, order: str, place: Cursor | None, *, count: Func[Any]
) -> QuerySet[VirtualMachine, Any]:
    """The next rows from this place on, one more than a page holds; backwards, nearest first."""
    columns = ORDERS[order]
    if place is not None and place.is_backward:
        columns = tuple(name[1:] if name.startswith("-") else f"-{name}" for name in columns)
    rows = vms.order_by(*columns).values_list(*_LISTED, count)
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
    return comparison(
        _tuple_of(*(F(name.lstrip("-")) for name in columns)), _tuple_of(*(Value(value) for value in values))
    )


def _tuple_of(*expressions: F | Value) -> Func:
    return Func(*expressions, template="(%(expressions)s)", output_field=TextField())


# Scans neither join others half-way nor run in parallel: a search takes its first matches without sorting them, and must
# find the same ones on the next page. The two costs are of indexes and rows in memory or on flash. With those of a disk
# PostgreSQL reads the fleet from its beginning until it has seen a thousand machines that match, and collects all machines
# of a reader's groups before it looks at the thousand that it needs.
_BOUNDS = (
    "SELECT set_config('statement_timeout', %s, true), set_config('synchronize_seqscans', 'off', true),"
    " set_config('max_parallel_workers_per_gather', '0', true), set_config('random_page_cost', '1.1', true),"
    " set_config('cpu_index_tuple_cost', '0.05', true); "
)


def fetch_bounded(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows of a statement that ends after `STATEMENT_TIMEOUT_MS`: then raises `ListTooSlowError`.

    It travels with its bounds in one message, which PostgreSQL carries out as one transaction.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(_BOUNDS + sql, [str(settings.STATEMENT_TIMEOUT_MS), *params])
            cursor.nextset()
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise ListTooSlowError from error
        raise


# --- totals ---------------------------------------------------------------------------------------------------------

COUNTED_WORDS = ("update_status", "hotpatch_status", "hotpatch_track")


def word_totals(user: User | AnonymousUser) -> dict[str, Counter[str]]:
    """How many VMs the user sees with each word, by the name of the word: exact, and read from the counters.

    Two or three queries. Single VMs that the user was granted by themselves are counted one by one.
    """
    grants = Grants.of(user)
    lines = WordCount.objects.order_by()
    single: set[int] = set()
    if not grants.are_of_everything:
        groups = Q(resource_group__any=array(sorted(grants.group_ids)))
        if subscriptions := grants.subscription_ids:
            groups |= Q(resource_group__in=ResourceGroup.objects.filter(subscription__in=subscriptions).values("pk"))
        lines, single = lines.filter(groups), grants.vm_ids
    found = {name: Counter[str]() for name in COUNTED_WORDS}
    for *words, machines in lines.values_list(*COUNTED_WORDS).annotate(machines=Sum("machines")):
        for name, word in zip(COUNTED_WORDS, words, strict=True):
            found[name][word] += machines
    if single:
        others = VirtualMachine.objects.filter(pk__any=array(sorted(single)))
        if grants.group_ids or grants.subscription_ids:
            others = others.exclude(groups)
        for row in others.order_by().values_list(*COUNTED_WORDS):
            for name, word in zip(COUNTED_WORDS, row, strict=True):
                found[name][word] += 1
    return found


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


def csv_lines(vms: VirtualMachineQuerySet, *, notes: Sequence[str] = ()) -> Iterator[str]:
    """These VMs as CSV with a head, in blocks of lines: memory does not grow with the fleet.

    Field names and codes are the same in every language, for scripts. For spreadsheets it begins with a byte order mark,
    and a text that one would take for a formula gets an apostrophe.
    """
    buffer = io.StringIO()
    buffer.write(BYTE_ORDER_MARK)
    writer = csv.writer(buffer)
    writer.writerows([f"# {note}"] for note in notes)
    writer.writerow(name.replace("__name", "").replace("resource_group__", "") for name in EXPORTED)
    for number, row in enumerate(vms.order_by("name", "pk").values_list(*EXPORTED).iterator(EXPORT_BLOCK), start=1):
        writer.writerow(harmless(value) for value in row)
        if number % EXPORT_BLOCK == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
