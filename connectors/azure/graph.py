"""Resource Graph: what Azure keeps of assessments (7 days) and installations (30 days), one query for many rows."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from connectors.azure.answers import Answer, NoAnswer, find, objects_of, seconds_of
from connectors.azure.resources import Resource

if TYPE_CHECKING:  # it imports the SDKs
    from connectors.azure.link import Ask

ADDRESS = "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"
PAGE = 1_000  # the most that it gives
_MOST_PAGES = 5
_QUOTA_RESET = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})")


def quoted(text: str) -> str:
    """A text as a literal of its query language."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def offered(resource: Resource) -> str:
    """The query for the patches that the last assessment of a machine found."""
    return _patches(resource, "patchassessmentresources", "patchAssessmentResults", "latest")


def installed(resource: Resource, activity: str) -> str:
    """The query for what one installation did with each patch."""
    return _patches(resource, "patchinstallationresources", "patchInstallationResults", activity)


def ever_installed(resource: Resource) -> str:
    """The query for what the installations of a machine did with each patch, whoever started them."""
    return _patches(resource, "patchinstallationresources", "patchInstallationResults", "")


def _patches(resource: Resource, table: str, kind: str, run: str) -> str:
    type_ = f"{resource.type.value}/{kind}/softwarePatches".lower()
    return (
        f"{table} | where type =~ {quoted(type_)}"
        f" | where id startswith {quoted(f'{resource.path}/{kind}/{run}'.rstrip('/') + '/')} | project id, name, properties"
    )


def assessment(resource: Resource) -> str:
    """The query for the last assessment of a machine."""
    type_ = f"{resource.type.value}/patchAssessmentResults".lower()
    return (
        f"patchassessmentresources | where type =~ {quoted(type_)}"
        f" | where id startswith {quoted(f'{resource.path}/patchAssessmentResults/')} | project id, name, properties"
    )


def installations(resource: Resource) -> str:
    """The query for the installations of a machine, one row for each."""
    type_ = f"{resource.type.value}/patchInstallationResults".lower()
    return (
        f"patchinstallationresources | where type =~ {quoted(type_)}"
        f" | where id startswith {quoted(f'{resource.path}/patchInstallationResults/')} | project id, name, properties"
    )


def rows_of(ask: Ask, subscriptions: Iterable[str], query: str) -> list[dict[str, Any]] | Answer | NoAnswer:
    """All rows of a query, or the answer that was no good. A list that does not end within five pages is cut there."""
    options: dict[str, Any] = {"$top": PAGE, "resultFormat": "objectArray"}
    body = {"subscriptions": list(subscriptions), "query": query, "options": options}
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for _page in range(_MOST_PAGES):
        answer = ask(lambda link: link.post(ADDRESS, body))
        if isinstance(answer, NoAnswer) or answer.status != 200 or not isinstance(find(answer.json, "data"), list):
            return answer
        rows += objects_of(answer.json, "data")
        token = find(answer.json, "$skipToken")
        if not isinstance(token, str) or not token or token in seen:
            break
        seen.add(token)
        options["$skipToken"] = token
    return rows


def quota_pause(answer: Answer) -> float | None:
    """How long Resource Graph wants to be left alone, in seconds."""
    match = _QUOTA_RESET.fullmatch(answer.headers.get("x-ms-user-quota-resets-after", "").strip())
    if match is None:
        return seconds_of(answer.headers.get("retry-after"))
    hours, minutes, seconds = map(int, match.groups())
    return float(hours * 3_600 + minutes * 60 + seconds)
