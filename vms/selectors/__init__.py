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
from vms.selectors.head import ListedView, ListHead, Totals, columns_of, list_head, visible_views
from vms.selectors.listing import (
    DEFAULT_ORDER,
    MAX_COUNT,
    ORDERS,
    ListedVm,
    VmPage,
    assessed_at,
    page_sql,
    search_by_name,
    tell_assessed,
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
from vms.selectors.principals import (
    NoSuchPlaceError,
    listed_principals,
    place_by_id,
    roles_of,
    secret_by_id,
    secret_by_text,
)
from vms.selectors.totals import word_totals

__all__ = [
    "DEFAULT_ORDER",
    "MAX_COUNT",
    "ORDERS",
    "PAGE_SIZE",
    "Cursor",
    "FilterOptions",
    "ListHead",
    "ListTooSlowError",
    "ListedView",
    "ListedVm",
    "NoSuchPlaceError",
    "Totals",
    "VmPage",
    "assessed_at",
    "build_of_image",
    "columns_of",
    "connections_in_charge",
    "connections_owned_by",
    "csv_lines",
    "eligibilities_of",
    "eligibility_of",
    "fetch_bounded",
    "filter_options",
    "groups_owned_by",
    "image_catalog",
    "list_head",
    "listed_principals",
    "may_create_vms",
    "owns_everything",
    "page_sql",
    "patcher_of",
    "place_by_id",
    "roles_of",
    "search_by_name",
    "secret_by_id",
    "secret_by_text",
    "shortest_names",
    "tell_assessed",
    "visible_views",
    "vm_page",
    "vms_by_name",
    "vms_patched_by",
    "was_assessed",
    "with_stale_patchers",
    "word_totals",
]
