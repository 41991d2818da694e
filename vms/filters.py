"""What the list of VMs can be narrowed by; every filter is part of the address."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

import django_filters
from django import forms
from django.utils.translation import gettext_lazy as _

from vms.choices import HOTPATCH_STATUSES, HOTPATCH_TRACKS, PATCHERS, POWER_STATES, UPDATE_STATUSES, Role
from vms.models import Grants, ResourceGroup, VirtualMachine, VirtualMachineQuerySet
from vms.regions import region_name
from vms.selectors import MAX_SELECTED, FilterOptions, filter_options, search_by_name

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class VmFilter(django_filters.FilterSet):  # type: ignore[misc]  # django-filter ships no types
    """Search words and exact filters. A value that does not exist filters nothing and is named beside its field."""

    q = django_filters.CharFilter(label=_("Search by name"), method="keep_for_search", max_length=200)
    update_status = django_filters.ChoiceFilter(label=_("Update status"), choices=UPDATE_STATUSES, empty_label=_("All"))
    hotpatch_status = django_filters.ChoiceFilter(
        label=_("Hotpatch status"), choices=HOTPATCH_STATUSES, empty_label=_("All")
    )
    hotpatch_track = django_filters.ChoiceFilter(
        label=_("Hotpatch track"), choices=HOTPATCH_TRACKS, empty_label=_("All")
    )
    patcher = django_filters.ChoiceFilter(label=_("Patched by"), choices=PATCHERS, empty_label=_("All"))
    connection = django_filters.ChoiceFilter(
        label=_("Connection"), field_name="connection_id", choices=[], empty_label=_("All")
    )
    subscription = django_filters.ChoiceFilter(
        label=_("Subscription"), choices=[], empty_label=_("All"), method="in_subscription"
    )
    resource_group = django_filters.CharFilter(label=_("Resource group"), method="in_resource_group", max_length=90)
    location = django_filters.CharFilter(label=_("Location"), method="in_location", max_length=60)
    power_state = django_filters.ChoiceFilter(label=_("Power state"), choices=POWER_STATES, empty_label=_("All"))

    class Meta:
        model = VirtualMachine
        fields: list[str] = []

    def __init__(self, data: Any, queryset: VirtualMachineQuerySet, *, options: FilterOptions) -> None:
        super().__init__(data, queryset)
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
        return cls(data, VirtualMachine.objects.granted_by(grants, role), options=filter_options(grants))

    @property
    def words(self) -> str:
        """The search words, empty if there are none or they cannot be searched for."""
        return str(self.form.cleaned_data.get("q", "")) if self.form.is_valid() or self.form.is_bound else ""

    @property
    def found(self) -> VirtualMachineQuerySet:
        """The VMs that are left, in no order."""
        return search_by_name(self.qs.order_by(), self.words)

    @property
    def narrowing(self) -> dict[str, str]:
        """What narrows the list, as it stands in the address."""
        return {name: value for name in self.filters if (value := str(self.data.get(name, "")).strip())}

    @property
    def is_active(self) -> bool:
        """Whether anything narrows the list."""
        return self.form.is_bound and any(self.form.cleaned_data.values())

    def keep_for_search(self, queryset: VirtualMachineQuerySet, _name: str, _value: str) -> VirtualMachineQuerySet:
        """Search is the selector's: it decides how many matches are sorted."""
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

    def in_location(self, queryset: VirtualMachineQuerySet, _name: str, value: str) -> VirtualMachineQuerySet:
        """VMs in this region; "Japan East" and "japaneast" are the same place."""
        return queryset.filter(location=region_name(value))


@cache
def _form_class() -> type[forms.Form]:
    fields = {name: each.field for name, each in deepcopy(VmFilter.base_filters).items()}
    return type("VmFilterForm", (forms.Form,), fields)


def matching_ids(user: User, data: Any) -> list[int]:
    """The ids of the VMs that match the list's filters and that the user owns; up to one more than a selection takes."""
    found = VmFilter.of(user, data, Role.OWNER).found
    return list(found.order_by("pk").values_list("pk", flat=True)[: MAX_SELECTED + 1])
