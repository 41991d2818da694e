"""Reads of the inventory. What other floors and doors use has its name here; the rooms are beside each other."""

from db.bounded import ListTooSlowError, fetch_bounded
from db.paging import PAGE_SIZE, Cursor
from vms.selectors.access import connections_owned_by, groups_owned_by, may_create_vms, owns_everything
from vms.selectors.eligibility import (
    build_of_image,
    eligibilities_of,
    eligibility_of,
    image_catalog,
    was_assessed,
)
from vms.selectors.export import csv_lines
from vms.selectors.listing import (
    DEFAULT_ORDER,
    MAX_COUNT,
    ORDERS,
    ListedVm,
    VmPage,
    page_sql,
    search_by_name,
    vm_page,
)
from vms.selectors.names import shortest_names, vms_by_name
from vms.selectors.offers import FilterOptions, filter_options
from vms.selectors.patchers import (
    connections_in_charge,
    patcher_of,
    vms_patched_by,
    with_stale_patchers,
)
from vms.selectors.totals import word_totals

__all__ = [
    "DEFAULT_ORDER",
    "MAX_COUNT",
    "ORDERS",
    "PAGE_SIZE",
    "Cursor",
    "FilterOptions",
    "ListTooSlowError",
    "ListedVm",
    "VmPage",
    "build_of_image",
    "connections_in_charge",
    "connections_owned_by",
    "csv_lines",
    "eligibilities_of",
    "eligibility_of",
    "fetch_bounded",
    "filter_options",
    "groups_owned_by",
    "image_catalog",
    "may_create_vms",
    "owns_everything",
    "page_sql",
    "patcher_of",
    "search_by_name",
    "shortest_names",
    "vm_page",
    "vms_by_name",
    "vms_patched_by",
    "was_assessed",
    "with_stale_patchers",
    "word_totals",
]
