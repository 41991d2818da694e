"""Lists in pages: by keyset over the primary key, with an absolute address of the next one."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import urlencode

from django.db.models import Model, QuerySet

from arm_api.calls import Call
from arm_api.errors import invalid

PAGE_ROWS = 500
_Row = TypeVar("_Row", bound=Model)
MARK = "$skiptoken"


def page_of(call: Call, rows: QuerySet[_Row]) -> tuple[list[_Row], str]:
    """The page that the call asks for and the address of the next one, empty on the last (one query)."""
    mark = call.option(MARK)
    if mark and not (mark.isascii() and mark.isdigit() and len(mark) < 19):
        raise invalid(f"The value of {MARK} is not one that this portal gave out.", MARK)
    most = PAGE_ROWS
    if top := call.option("$top"):
        if not (top.isascii() and top.isdigit() and int(top[:9]) > 0 and len(top) < 10):
            raise invalid("$top must be a positive number.", "$top")
        most = min(most, int(top))
    found = list(rows.filter(pk__gt=int(mark or 0)).order_by("pk")[: most + 1])
    return found[:most], _next(call, found[most - 1]) if len(found) > most else ""


def _next(call: Call, last: Model) -> str:
    query = {key: value for key, value in call.request.GET.items() if key.lower() != MARK}
    return f"{call.origin}{call.request.path}?{urlencode(query | {MARK: str(last.pk)}, safe='$')}"


def listed(values: list[dict[str, Any]], next_link: str) -> dict[str, Any]:
    """A page as ARM writes it: no `nextLink` on the last one."""
    return {"value": values} | ({"nextLink": next_link} if next_link else {})
