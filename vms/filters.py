"""What the list of VMs can be narrowed by; every filter is part of the address."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import django_filters
from django import forms
from django.core.validators import ProhibitNullCharactersValidator, RegexValidator
from django.db.models import Q
from django.http import QueryDict
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from db.bounded import ListTooSlowError, count_up_to
from patching.terms import ON_TRACK_WORDS, Classification
from ui.widgets import QuickSelect
from vms.choices import (
    ATTENTION,
    CONDITIONS,
    COVERAGES,
    GONE_STATES,
    HOTPATCH_STATUSES,
    HOTPATCH_TRACKS,
    PATCHERS,
    POWER_STATES,
    PRODUCT_LINES,
    REBOOTS_HOW,
    SETTINGS_STATES,
    UPDATE_STATUSES,
    Condition,
    Role,
    SelectionProblem,
)
from vms.filter_text import NEXT_PATCH_TUESDAY, ReadText, read_text, says_filters, write_text
from vms.models import Grants, ResourceGroup, VirtualMachine, VirtualMachineQuerySet
from vms.regions import region_name
from vms.selectors import (
    DEFAULT_ORDER,
    MAX_COUNT,
    OFFERING,
    WAYS,
    FilterOptions,
    filter_options,
    offers_like,
    search_by_name,
)
from vms.tags import HasTag
from vms.texts import SELECTION_PROBLEMS, Text

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


# What floors above know of machines, by the name of the filter: they say which of the machines have it.
Narrowing = Callable[[VirtualMachineQuerySet, str], VirtualMachineQuerySet]
_told: dict[str, Narrowing] = {}


def tell_filter(name: str, narrowing: Narrowing) -> None:
    """Let `narrowing` say what the filter of this name leaves. Once a process, for each filter that asks above."""
    _told[name] = narrowing


LIST_PARAMETERS = frozenset({"sort", "cursor"})  # what the list's address holds beside its filters
MAX_SHOWN = 60  # characters of a value that is named


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing about a selection that cannot be read or has changed, with the value that it is about."""

    kind: SelectionProblem
    name: str = ""
    value: str = ""
    count: int = 0

    @property
    def words(self) -> str:
        """What is wrong, and what to do."""
        shown = _printable(self.value)
        shown = f"{shown[:MAX_SHOWN]}…" if len(shown) > MAX_SHOWN else shown
        name = _printable(self.name)[:MAX_SHOWN]
        label: Text = VmFilter.base_filters[self.name].label if self.name in VmFilter.base_filters else name
        return str(SELECTION_PROBLEMS[self.kind] % {"name": name, "value": shown, "label": label, "count": self.count})


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that narrows the list, in words, and the query of the list without it."""

    label: str
    value: str
    without: str


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# A class of updates, or a KB; what went wrong within a week, with the KB (or none) and the code of the reason.
_LACKS = rf"^({'|'.join(Classification)}|(KB)?\d{{4,10}})$"
_TROUBLE = r"^(failed(:(\d{4,10})?:.+)?|contradicted)$"
_KB = r"^(KB)?[0-9]{4,10}$"
# A month or "next" (the next Patch Tuesday); then how: will reboot (no suffix), may, unknown, or any of these.
_REBOOTS = rf"^(20\d\d-(0[1-9]|1[0-2])|{NEXT_PATCH_TUESDAY})(:(may|unknown|any))?$"


class OfferingInput(forms.TextInput):
    """A text for which the server offers values that contain it, while it is typed (the list's suggestions).

    Without JavaScript nothing is offered beside it; an empty list then names what comes near.
    """

    def build_attrs(self, base_attrs: dict[str, Any], extra_attrs: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the element carries; its list is beside it, by the same name."""
        found = super().build_attrs(base_attrs, extra_attrs)
        offers = f"{found.get('id', 'id')}_offers"
        return found | {
            "list": offers,
            "hx-get": reverse("vms:suggestions"),
            "hx-trigger": "input changed delay:200ms",
            "hx-target": f"#{offers}",
            "hx-swap": "innerHTML",
            "hx-push-url": "false",
        }


class VmFilter(django_filters.FilterSet):  # type: ignore[misc]  # django-filter ships no types
    """Search words and exact filters.

    What cannot be read filters nothing: the list says so (`problems`), and what acts takes no machine then
    (`vms.selection`). Machines that are gone are left out unless they are asked for. Connections and subscriptions are those that the reader may see.
    """

    q = django_filters.CharFilter(
        label=_("Search by name"),
        method="keep_for_search",
        max_length=200,
        widget=forms.TextInput(attrs={"placeholder": _("Name, KB, or words as track:off")}),
    )
    update_status = django_filters.ChoiceFilter(
        label=_("Update status"), choices=UPDATE_STATUSES, empty_label=_("All"), widget=QuickSelect
    )
    hotpatch_status = django_filters.ChoiceFilter(
        label=_("Hotpatch status"), choices=HOTPATCH_STATUSES, empty_label=_("All"), widget=QuickSelect
    )
    hotpatch_track = django_filters.ChoiceFilter(
        label=_("Hotpatch track"), choices=HOTPATCH_TRACKS, empty_label=_("All"), widget=QuickSelect
    )
    patcher = django_filters.ChoiceFilter(
        label=_("Patched by"), choices=PATCHERS, empty_label=_("All"), widget=QuickSelect
    )
    settings = django_filters.ChoiceFilter(
        label=_("Settings"),
        choices=SETTINGS_STATES,
        empty_label=_("All"),
        widget=QuickSelect,
        method="in_settings_state",
    )
    connection = django_filters.ChoiceFilter(
        label=_("Connection"), field_name="connection_id", choices=[], empty_label=_("All"), widget=QuickSelect
    )
    subscription = django_filters.ChoiceFilter(
        label=_("Subscription"), choices=[], empty_label=_("All"), widget=QuickSelect, method="in_subscription"
    )
    resource_group = django_filters.CharFilter(
        label=_("Resource group"), method="in_resource_group", max_length=90, widget=OfferingInput
    )
    location = django_filters.CharFilter(label=_("Location"), method="in_location", max_length=60, widget=OfferingInput)
    power_state = django_filters.ChoiceFilter(
        label=_("Power state"), choices=POWER_STATES, empty_label=_("All"), widget=QuickSelect
    )
    gone = django_filters.ChoiceFilter(
        label=_("Gone machines"),
        choices=GONE_STATES,
        empty_label=_("Not shown"),
        widget=QuickSelect,
        method="that_are_gone",
    )
    product_line = django_filters.ChoiceFilter(
        label=_("Product line"), choices=PRODUCT_LINES, empty_label=_("All"), widget=QuickSelect
    )
    tag = django_filters.CharFilter(
        label=_("Tag"),
        method="with_tag",
        max_length=200,
        validators=[RegexValidator(r"^\s*[^=\s]")],
        widget=OfferingInput,
    )
    condition = django_filters.ChoiceFilter(
        label=_("Condition"), choices=CONDITIONS, empty_label=_("All"), widget=QuickSelect, method="in_condition"
    )
    lacks = django_filters.CharFilter(
        label=_("Lacks"), method="as_told", max_length=40, validators=[RegexValidator(_LACKS)]
    )
    trouble = django_filters.CharFilter(
        label=_("Trouble"), method="as_told", max_length=100, validators=[RegexValidator(_TROUBLE)]
    )
    has = django_filters.CharFilter(
        label=_("Has KB"), method="as_told", max_length=12, validators=[RegexValidator(_KB)]
    )
    failed = django_filters.CharFilter(
        label=_("Failed on KB within 7 days"), method="as_told", max_length=12, validators=[RegexValidator(_KB)]
    )
    held = django_filters.CharFilter(
        label=_("Holds back KB"), method="as_told", max_length=12, validators=[RegexValidator(_KB)]
    )

    reboots = django_filters.CharFilter(
        label=_("Reboots in"), method="as_told", max_length=16, validators=[RegexValidator(_REBOOTS)]
    )

    coverage = django_filters.ChoiceFilter(
        label=_("Maintenance configurations that mean it"),
        choices=COVERAGES,
        empty_label=_("All"),
        widget=QuickSelect,
        method="as_told",
    )

    class Meta:
        model = VirtualMachine
        fields: list[str] = []

    grants = Grants(())  # the roles of the reader, for the values that are offered

    def __init__(self, data: Any, queryset: VirtualMachineQuerySet, *, options: FilterOptions) -> None:
        self.text = read_text(q, options) if says_filters(q := _typed(data)) else None
        super().__init__(data if self.text is None else _with_filters(data, self.text), queryset)
        self.options = options
        self.form.fields["connection"].choices = options.connections
        self.form.fields["subscription"].choices = options.subscriptions

    def get_form_class(self) -> type[forms.Form]:
        """The class of every reader's form: to make one for each page would take a third of this filter set's time."""
        return _form_class()

    @classmethod
    def of(cls, user: User | AnonymousUser, data: Any, role: Role = Role.READER) -> VmFilter:
        """The VMs on which the user holds at least this role, narrowed by what was asked for.

        Two queries; three with a role on a subscription.
        """
        grants = Grants.of(user)
        found = cls(data, VirtualMachine.objects.granted_by(grants, role), options=filter_options(grants))
        found.grants = grants
        return found

    @property
    def words(self) -> str:
        """The search words, empty if there are none or they cannot be searched for."""
        text = str(self.form.cleaned_data.get("q", "")) if self.form.is_valid() or self.form.is_bound else ""
        return text if holds_a_word(text) else ""

    @property
    def found(self) -> VirtualMachineQuerySet:
        """The VMs that are left, in no order."""
        return search_by_name(self.qs.order_by(), self.words)

    def problems(self, others: Collection[str] = LIST_PARAMETERS) -> tuple[Problem, ...]:
        """What the address says and this filter set does not do. `others`: names that are somebody else's."""
        errors = self.form.errors if self.form.is_bound else {}
        found = [Problem(each.kind, each.name, each.value) for each in self.text.unread] if self.text else []
        for name in self.data:
            values = values_of(self.data, name)
            if name not in self.filters:
                found += [Problem(SelectionProblem.UNKNOWN_NAME, name, values[-1])] if name not in others else []
            elif len(set(values)) > 1:
                found.append(Problem(SelectionProblem.GIVEN_TWICE, name, ", ".join(values)))
            elif (kind := _kind_of(values[-1], errors.get(name), is_search=name == "q")) is not None:
                found.append(Problem(kind, name, values[-1]))
        return tuple(found)

    @cached_property
    def ignored(self) -> tuple[Problem, ...]:
        """`problems` of the list's own address."""
        return self.problems()

    @property
    def narrowing(self) -> dict[str, str]:
        """What narrows the list, as it stands in the address."""
        return {name: value for name in self.filters if (value := str(self.data.get(name, "")).strip())}

    @property
    def lacking_kb(self) -> str:
        """The KB that all of these machines lack, where the list is narrowed to one."""
        kb_number = self.narrowing.get("lacks", "").upper().removeprefix("KB")
        return kb_number if kb_number.isascii() and kb_number.isdigit() else ""

    @property
    def told(self) -> list[tuple[str, str]]:
        """What narrows the list: the word for each filter, and its value as the list shows it."""
        found = []
        for name, value in self.narrowing.items():
            choices = dict(getattr(self.form.fields[name], "choices", ()))
            found.append((str(self.base_filters[name].label), _shown(name, str(choices.get(value, value)))))
        return found

    @property
    def as_text(self) -> str:
        """What narrows the list, as a text to type into its search: it means the same filters."""
        return write_text(self.narrowing, self.options)

    def chips(self, sort: str = "") -> list[Chip]:
        """What narrows the list, each with the address of the list without it. `sort`: an order that stays."""
        narrowing = self.narrowing
        kept = {"sort": sort} if sort else {}
        return [
            Chip(label, value, urlencode({n: v for n, v in narrowing.items() if n != name} | kept))
            for name, (label, value) in zip(narrowing, self.told, strict=True)
        ]

    @property
    def near_misses(self) -> list[tuple[str, str, str]]:
        """For a list that is empty: values that contain what was typed, with the word for the filter and the list's address."""
        narrowing, found = self.narrowing, []
        for name in OFFERING:
            typed = narrowing.get(name, "")
            offers: tuple[str, ...] = ()
            with suppress(ListTooSlowError):
                offers = offers_like(self.grants, name, typed) if typed else ()
            found += [
                (str(self.base_filters[name].label), offer, urlencode(narrowing | {name: offer}))
                for offer in offers
                if offer.casefold() != typed.casefold()
            ]
        return found

    @property
    def is_active(self) -> bool:
        """Whether anything narrows the list further than it is without an address."""
        return self.form.is_bound and any(
            value for name, value in self.form.cleaned_data.items() if (name, value) != ("gone", "no")
        )

    @property
    def shows_gone(self) -> bool:
        """Whether the machines are asked for that are gone, and no others."""
        return bool(self.form.is_bound and self.form.cleaned_data.get("gone") == "yes")

    def filter_queryset(self, queryset: VirtualMachineQuerySet) -> VirtualMachineQuerySet:
        """The VMs that every filter leaves; of those that are gone none, or no others."""
        if self.is_unread:
            return queryset.none()
        found: VirtualMachineQuerySet = super().filter_queryset(queryset)
        return found.filter(gone_at__isnull=not self.shows_gone)

    @property
    def is_unread(self) -> bool:
        """Whether the search holds a word that means nothing: no machine is meant then."""
        return self.text is not None and bool(self.text.unread)

    def count_gone(self) -> int:
        """How many machines that are gone match everything else, up to one more than a list counts; 0 where they are shown.

        One query of an index that has no others. Raises `db.bounded.ListTooSlowError`.
        """
        if self.shows_gone or self.is_unread:
            return 0
        found: VirtualMachineQuerySet = super().filter_queryset(self.queryset.order_by())
        return count_up_to(search_by_name(found.filter(gone_at__isnull=False), self.words), MAX_COUNT + 1)

    def keep_for_search(self, queryset: VirtualMachineQuerySet, _name: str, _value: str) -> VirtualMachineQuerySet:
        """Search is the selector's: it decides how many matches are sorted."""
        return queryset

    def that_are_gone(self, queryset: VirtualMachineQuerySet, _name: str, _value: str) -> VirtualMachineQuerySet:
        """`filter_queryset` does it: without an answer, too, the machines that are gone are left out."""
        return queryset

    # Group ids instead of joins: each of these filters then reads an index of the list in its order.
    def in_subscription(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs of the subscription's resource groups."""
        return queryset.filter(resource_group__in=ResourceGroup.objects.filter(subscription_id=value).values("pk"))

    def in_resource_group(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs of the resource groups of this name, compared without case as Azure does."""
        # The ids are read first: with them PostgreSQL knows how few machines it looks for.
        groups = ResourceGroup.objects.filter(name__iexact=value).order_by("pk").values_list("pk", flat=True)
        return queryset.filter(resource_group__in=list(groups))

    def in_settings_state(self, queryset: VirtualMachineQuerySet, _name: str, _value: str) -> VirtualMachineQuerySet:
        """VMs that report other settings than they shall have."""
        return queryset.filter(desired_settings__isnull=False)

    def with_tag(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs with a tag of this name, or with name=value: names without case, values with it, as Azure compares them."""
        name, _sign, text = value.partition("=")
        return queryset.filter(HasTag(name.strip(), text.strip()))

    def in_condition(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs that several words put together."""
        return queryset.filter(_IN_CONDITION[Condition(value)])

    def as_told(self, queryset: VirtualMachineQuerySet, name: str, value: str) -> VirtualMachineQuerySet:
        """VMs of which a floor above says that they have it."""
        return _told[name](queryset, value)

    def in_location(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs in this region; "Japan East" and "japaneast" are the same place."""
        return queryset.filter(location=region_name(value))


_IN_CONDITION = {
    Condition.NEEDS_ATTENTION: Q(need__gte=ATTENTION),
    Condition.NEVER_ASSESSED: Q(patch_set=0),
    Condition.ON_TRACK: Q(hotpatch_track__in=sorted(ON_TRACK_WORDS)),
    Condition.LACKS_CRITICAL: Q(critical_and_security_count__gt=0),
}


def _shown(name: str, value: str) -> str:
    """The value of a filter as the list shows it."""
    if name == "lacks" and value.isdigit():
        return f"KB{value}"
    if name == "reboots":
        month, _sign, how = value.partition(":")
        month = gettext("the month of the next Patch Tuesday") if month == NEXT_PATCH_TUESDAY else month
        return f"{month} ({REBOOTS_HOW[how]})" if how in REBOOTS_HOW else month
    return value


def _typed(data: Any) -> str:
    """What was typed into the search, once."""
    values = values_of(data or {}, "q")
    return values[0] if len(set(values)) == 1 else ""


def _with_filters(data: Any, text: ReadText) -> QueryDict:
    """What was asked for, with the filters that were typed in place of their text."""
    found = QueryDict(mutable=True)
    for name in data:
        found.setlist(name, values_of(data, name))
    for name, value in text.filters.items():
        found.appendlist(name, value)
    if text.search:
        found["q"] = text.search
    elif text.filters or text.unread:
        del found["q"]
    return found


@cache
def _form_class() -> type[forms.Form]:
    fields = {name: each.field for name, each in deepcopy(VmFilter.base_filters).items()}
    # An address may say "no"; the form leaves it out, and the address short.
    gone = fields["gone"]
    gone.widget.choices = [(value, label) for value, label in gone.choices if value != "no"]
    return type("VmFilterForm", (forms.Form,), fields)


def values_of(data: Any, name: str) -> list[str]:
    """Every value of a parameter: of a QueryDict all, of a plain dict the one."""
    values = data.getlist(name) if hasattr(data, "getlist") else [data.get(name, "")]
    return [str(value) for value in values] or [""]


def holds_a_word(text: str) -> bool:
    """Whether a name could hold anything of this."""
    return any(character.isalnum() for character in text)


def _kind_of(value: str, errors: Any, *, is_search: bool) -> SelectionProblem | None:
    """What is wrong with a filter's value. None: nothing, or there is no value."""
    if not value:
        return None
    if not value.strip():
        return SelectionProblem.BLANK
    if errors:
        codes = {error.code for error in errors.as_data()}
        if "max_length" in codes:
            return SelectionProblem.TOO_LONG
        is_unreadable = ProhibitNullCharactersValidator.code in codes or "\x00" in value
        return SelectionProblem.UNREADABLE if is_unreadable else SelectionProblem.UNKNOWN_VALUE
    return SelectionProblem.NO_WORD if is_search and not holds_a_word(value) else None


def order_of(filters: VmFilter, asked: str) -> str:
    """The order of the list. Who asks for none gets what needs attention first; of machines that were narrowed down, the names.

    So each is read from one index, however large the fleet.
    """
    if asked in WAYS:
        return asked
    is_narrowed = set(filters.narrowing.items()) - {("condition", Condition.NEEDS_ATTENTION.value)}
    return "name" if is_narrowed else DEFAULT_ORDER


FILTER_NAMES: tuple[str, ...] = tuple(VmFilter.base_filters)
