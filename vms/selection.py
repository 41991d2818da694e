"""Selections of machines: what an address or a form asks for, read once at the door; nothing where it is not clear.

Services take a `VmSelection` and nothing else. It is a set of ids, not a rule: machines that are added, moved or retagged
after it was made never join it. What a person may do with them is judged again by who acts (docs/rules.md, selection of
machines).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.exceptions import EmptyResultSet
from django.http import QueryDict
from django.utils import timezone

from db.arrays import array
from db.bounded import ListTooSlowError, fetch_bounded
from vms.choices import HOTPATCH_TRACKS, UPDATE_STATUSES, Role, SelectionProblem
from vms.filters import Problem, VmFilter
from vms.models import Grants, VirtualMachine, VirtualMachineQuerySet
from vms.ticks import asked

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# What an asked selection consists of, beside the filters.
SELECTION_PARAMETERS = frozenset({"vm", "all", "except", "kept", "shown", "confirm", "csrfmiddlewaretoken"})
_CHOOSING = ("vm", "all", "except", *VmFilter.base_filters)
MAX_ID = 2**63 - 1
P = SelectionProblem


@dataclass(frozen=True, slots=True)
class VmSelection:
    """These machines and no others: `packed` is PostgreSQL's text of the array of their ids, in their order."""

    packed: str
    count: int

    @classmethod
    def of(cls, vm_ids: Iterable[int]) -> VmSelection:
        """The machines with these ids."""
        ids = sorted(set(vm_ids))
        return cls(array(ids), len(ids))

    @classmethod
    def matching(cls, vms: VirtualMachineQuerySet) -> VmSelection:
        """All of these machines, as they are now (one query). Raises `ListTooSlowError`: they cannot be counted in time."""
        try:
            sql, parameters = vms.order_by().values("pk").query.sql_with_params()
        except EmptyResultSet:
            return NOTHING
        counted = f"SELECT count(*), coalesce(array_agg(m.id ORDER BY m.id)::text, '{{}}') FROM ({sql}) AS m(id)"  # noqa: S608 (ours)
        ((count, packed),) = fetch_bounded(counted, parameters)
        return cls(packed, count)

    @property
    def ids(self) -> list[int]:
        """The ids, ascending."""
        return [int(text) for text in self.packed[1:-1].split(",") if text]

    @property
    def vms(self) -> VirtualMachineQuerySet:
        """Those of the machines that are still there, in no order."""
        return VirtualMachine.objects.filter(pk__any=self.packed).order_by()

    @property
    def mark(self) -> str:
        """How many they are and which: two selections have the same mark if, and only if, they are the same."""
        return f"{self.count}-{hashlib.sha256(self.packed.encode()).hexdigest()}"


NOTHING = VmSelection("{}", 0)


def read_once(posted: QueryDict, address: QueryDict) -> QueryDict:
    """Everything a form was sent with, its fields and the parameters of its address."""
    if not posted:
        return address
    merged = posted.copy()
    for name, values in address.lists():
        merged.setlist(name, [*merged.getlist(name), *values])
    return merged


class AskedSelection:
    """The machines that an address or a form asks for: those that are ticked (`vm`), or all that match (`all=1`).

    Of all that match, some may be left out (`except`). `kept=1` asks for what is ticked in the person's list.
    Where anything of it is unknown, unreadable, gone or missing, `selection` is empty and `problems` says why.
    Of ticked machines those without the role stay in: whoever acts answers for each. All that match are those on which
    the user holds the role. `others`: parameters that belong to the rest of the form, those of `several` take more than
    one value. `most`: how many go at once.
    """

    def __init__(
        self,
        data: QueryDict,
        *,
        user: User,
        role: Role,
        others: Collection[str] = (),
        several: Collection[str] = (),
        most: int | None = None,
    ) -> None:
        self.forgotten = 0  # machines that were ticked in the list and are there no more, or for this user
        problems: list[Problem] = []
        if "kept" in data:
            data, problems = self._unfold(data, user)
        self.is_all = "all" in data
        self.are_gone = False  # none of the ticked machines is there, or for this user
        self.selection, self.without_role, self.filters = NOTHING, 0, dict[str, str]()
        self.filter_words: list[tuple[str, str]] = []  # the same filters in the words of the list
        self.lacking_role = set[int]()  # the ticked machines on which the user does not hold the role
        self._shown = data.get("shown", "")
        filters = VmFilter.of(user, data, role)
        problems += filters.problems(SELECTION_PARAMETERS | set(others))
        once = {*others, "all", "kept", "shown", "confirm"} - set(several)
        problems += [
            Problem(P.GIVEN_TWICE, name, ", ".join(values))
            for name, values in data.lists()
            if name in once and len(set(values)) > 1
        ]
        ticked = data.getlist("vm")
        if self.is_all:
            problems += [Problem(P.UNKNOWN_VALUE, "all", text) for text in data.getlist("all") if text != "1"][:1]
        if ticked and (self.is_all or filters.narrowing):
            named = "all=1" if self.is_all else next(f"{name}={value}" for name, value in filters.narrowing.items())
            problems.append(Problem(P.TICKED_AND_ALL, value=named))
        excepted = data.getlist("except")
        if excepted and not self.is_all:
            problems.append(Problem(P.UNKNOWN_NAME, "except", excepted[0]))
        problems += [Problem(P.NO_MACHINE_ID, "vm", text) for text in (*ticked, *excepted) if not _is_id(text)][:1]
        self.excepted = sorted({int(text) for text in excepted}) if not problems else []
        if not problems and self.is_all:
            problems += self._take_all(user, role, filters)
        elif not problems:
            problems += self._take_ticked(user, role, {int(text) for text in ticked})
        if not problems and most is not None and self.selection.count > most:
            problems.append(Problem(P.TOO_MANY, value=f"{self.selection.count:,}"))
        if problems:
            self.selection = NOTHING
        self.problems = tuple(problems)

    def _unfold(self, data: QueryDict, user: User) -> tuple[QueryDict, list[Problem]]:
        """The same with what is ticked in the person's list in place of `kept`; nothing may be asked for beside it."""
        problems = [Problem(P.UNKNOWN_VALUE, "kept", text) for text in data.getlist("kept") if text != "1"][:1]
        problems += [Problem(P.TICKED_AND_ALL, value=name) for name in _CHOOSING if name in data][:1]
        if problems:
            return data, problems
        found, self.forgotten = asked(user, now=timezone.now())
        for name, values in data.lists():
            if name != "kept":
                found.setlist(name, values)
        return found, []

    def _take_ticked(self, user: User, role: Role, ids: set[int]) -> list[Problem]:
        if not ids:
            return [Problem(P.NOTHING_TICKED)]
        ticked = VirtualMachine.objects.filter(pk__any=array(ids)).order_by()
        seen = set(ticked.visible_to(user).values_list("pk", flat=True))
        if gone := sorted(ids - seen):
            self.are_gone = not seen
            return [Problem(P.MACHINE_GONE, "vm", str(pk)) for pk in gone[:3]]
        self.lacking_role = ids - set(ticked.visible_to(user, role).values_list("pk", flat=True))
        self.without_role = len(self.lacking_role)
        if self.without_role == len(ids):
            return [Problem(P.ROLE_MISSING)]
        self.selection = VmSelection.of(ids)
        return []

    def _take_all(self, user: User, role: Role, filters: VmFilter) -> list[Problem]:
        self.filters, self.filter_words = filters.narrowing, filters.told
        try:
            self.selection = VmSelection.matching(self._but_excepted(filters.found))
            grants = Grants.of(user)
            if grants.at_least(role) != grants:
                seen = VmFilter(filters.data, VirtualMachine.objects.granted_by(grants), options=filters.options)
                self.without_role = VmSelection.matching(self._but_excepted(seen.found)).count - self.selection.count
        except ListTooSlowError:
            return [Problem(P.TOO_SLOW)]
        if not self.selection.count:
            asked = ", ".join(f"{name}: {value}" for name, value in filters.told)
            return [Problem(P.NOTHING_MATCHES, value=asked or "all=1")]
        return []

    def _but_excepted(self, vms: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
        return vms.exclude(pk__any=array(self.excepted)) if self.excepted else vms

    @property
    def is_nothing_ticked(self) -> bool:
        """Whether the only thing missing is a choice of machines."""
        return [problem.kind for problem in self.problems] == [P.NOTHING_TICKED]

    @property
    def is_role_missing(self) -> bool:
        """Whether the user sees the machines and may do this on none of them."""
        return any(problem.kind is P.ROLE_MISSING for problem in self.problems)

    @property
    def change(self) -> Problem | None:
        """Why all that match are not what the page showed, if they are not; ticked machines are always what they are."""
        if not self.is_all or not self.selection.count or self._shown == self.selection.mark:
            return None
        text, _dash, digest = self._shown.partition("-")
        if not digest or not _is_id(text):
            return Problem(P.NOT_SHOWN)
        if int(text) == self.selection.count:
            return Problem(P.MEMBERS_CHANGED, count=self.selection.count)
        return Problem(P.SET_CHANGED, value=text, count=self.selection.count)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """What a form carries along to ask for the same again."""
        if not self.is_all:
            return [("vm", str(pk)) for pk in self.selection.ids]
        excepted = (("except", str(pk)) for pk in self.excepted)
        return [("all", "1"), *self.filters.items(), *excepted, ("shown", self.selection.mark)]

    @property
    def classes(self) -> list[tuple[str, str, int]]:
        """The machines by update status and hotpatch track, the most first: words and how many (one query)."""
        statuses, tracks = dict(UPDATE_STATUSES), dict(HOTPATCH_TRACKS)
        rows = fetch_bounded(_CLASSES, [self.selection.packed]) if self.selection.count else []
        return [(str(statuses.get(status, status)), str(tracks.get(track, track)), n) for status, track, n in rows]


_CLASSES = """
SELECT update_status, hotpatch_track, count(*) FROM vms_virtualmachine WHERE id = ANY(%s::bigint[])
GROUP BY update_status, hotpatch_track ORDER BY 3 DESC, 1, 2
"""


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= MAX_ID
