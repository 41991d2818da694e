"""The qualification kit of Azure: some thirty looks at an endpoint, through the connector's own code. They change nothing there.

What a look sees is told as evidence: names, counts, times and addresses without what is behind their question mark. No token and
no secret is ever in one. Nothing imports an SDK before the walk begins.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid5

from connectors.azure import graph, inventory
from connectors.azure.answers import Answer, NoAnswer, find, objects_of, seconds_of, text_of
from connectors.azure.bodies import settings_body
from connectors.azure.configuration import (
    CALL_SECONDS,
    STARTS_AT_ONCE,
    STARTS_PER_MINUTE,
    AzureConfiguration,
    budget_of,
)
from connectors.azure.errors import counters, refusal, silence
from connectors.azure.handles import is_ours
from connectors.azure.permissions import MOST_SUBSCRIPTIONS, NEEDED, SETTINGS, grants, lacking
from connectors.azure.resources import Resource, Type, resource_of
from connectors.azure.results import began_at, build_of, settings_of, summary_of, word
from connectors.catalogue import Catalogue
from connectors.protocol import ConnectorError, Place
from connectors.qualification import Check, Finding, Kit, Verdict
from patching.codes import ErrorCode
from patching.terms import RunStatus

if TYPE_CHECKING:
    from connectors.azure.link import Ask, Link

LEAST_TOKEN_SECONDS = 300.0
MOST_CLOCK_SECONDS = 300.0
_SUBSCRIPTIONS_TRIED, _MACHINES_TRIED = 20, 10
_NO_VERSION = "1999-01-01"
_NOBODY = "hotpatch-portal-no-such-machine"
_OPERATIONS_VERSION = "2026-04-01"
_STATES = ("running", "starting", "stopping", "stopped", "deallocating", "deallocated", "unknown")
_SETTINGS = ("patchMode", "assessmentMode", "enableHotpatching")
_NO_MACHINE = "no Windows virtual machine was found"


class _Nothing(Exception):  # noqa: N818 (a way out of a look, not an error for anybody else)
    """There is nothing to look at."""


class _Wrong(Exception):  # noqa: N818 (the same)
    """It is not as it should be; `evidence` is what was seen."""

    def __init__(self, reason: str, evidence: str = "") -> None:
        super().__init__(reason)
        self.evidence = evidence


@dataclass
class _Walk:
    """One walk: what was asked once is asked no second time."""

    link: Link
    conf: AzureConfiguration
    now: datetime
    began: float = field(default_factory=time.monotonic)
    seen: list[Answer] = field(default_factory=list)

    def moment(self) -> datetime:
        """The real time."""
        return datetime.fromtimestamp(self.now.timestamp() + time.monotonic() - self.began, UTC)

    def ask(self, call: Callable[[Link], object]) -> Answer:
        """The answer to a call. Raises _Wrong where there is none."""
        answer = self.link.one(call, deadline=time.monotonic() + CALL_SECONDS)
        if isinstance(answer, NoAnswer):
            error = silence(answer)
            raise _Wrong(f"{error.code}: {error.detail}".strip(": "))
        self.seen.append(answer)
        return answer

    def good(self, call: Callable[[Link], object]) -> Answer:
        """The same where it is 200. Raises _Wrong for anything else."""
        answer = self.ask(call)
        if answer.status != 200:
            error = refusal(answer)
            raise _Wrong(f"HTTP {answer.status}, {error.code}: {error.detail}"[:500])
        return answer

    @cached_property
    def subscriptions(self) -> Answer:
        """The list of subscriptions."""
        return self.good(lambda link: link.get(inventory.SUBSCRIPTIONS))

    @cached_property
    def read(self) -> tuple[str, ...]:
        """The subscriptions that the connection reads."""
        found = inventory.subscriptions_of(self.link, self.conf, time.monotonic() + CALL_SECONDS)
        if isinstance(found, ConnectorError):
            raise _Wrong(f"{found.code}: {found.detail}")
        if not found:
            raise _Wrong("no subscription is seen")
        return tuple(found)

    @cached_property
    def pages(self) -> dict[str, Answer]:
        """The first page of machines of each subscription, up to the first one that has some."""
        found: dict[str, Answer] = {}
        for subscription in self.read[:_SUBSCRIPTIONS_TRIED]:
            answer = found[subscription] = self.good(partial(_first_page, subscription))
            if not isinstance(find(answer.json, "value"), list):
                raise _Wrong("the list of machines is no list")
            if any(_is_windows(row) for row in objects_of(answer.json, "value")):
                break
        return found

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The machines of those pages."""
        return [row for page in self.pages.values() for row in objects_of(page.json, "value")]

    @cached_property
    def views(self) -> list[Answer]:
        """Some Windows machines, each as Azure tells it by itself. Raises _Nothing where there are none."""
        resources = [self.resource_in(row) for row in self.rows if _is_windows(row)]
        if not resources:
            raise _Nothing(_NO_MACHINE)
        return [self.good(partial(_machine, one)) for one in resources[:_MACHINES_TRIED]]

    @cached_property
    def machine(self) -> Answer:
        """One that runs, where one does."""
        running = [view for view in self.views if _power_state(view.json) == "running"]
        return (running or self.views)[0]

    @property
    def resource(self) -> Resource:
        """That machine by the parts of its id."""
        return self.resource_in(self.machine.json)

    @staticmethod
    def resource_in(row: dict[str, Any]) -> Resource:
        """The machine of a row. Raises _Wrong where its id is none."""
        found = resource_of(text_of(row, "id"))
        if found is None:
            raise _Wrong("an id that names no machine", text_of(row, "id")[:200])
        return found

    def rows_of_graph(self, query: str) -> str:
        """Ask Resource Graph, as the connector does; how many rows it told. Raises _Wrong where it does not answer."""

        def job(ask: Ask) -> list[dict[str, Any]] | Answer | NoAnswer:
            return graph.rows_of(partial(self._noted, ask), [self.resource.subscription], query)

        (rows,) = self.link.each([job], deadline=time.monotonic() + CALL_SECONDS)
        if isinstance(rows, NoAnswer):
            raise _Wrong(silence(rows).detail or rows.why.value)
        if isinstance(rows, Answer):
            error = refusal(rows)
            raise _Wrong(f"HTTP {rows.status}, {error.code}: {error.detail}"[:500])
        return f"{len(rows)} rows"

    def _noted(self, ask: Ask, call: Callable[[Link], object]) -> Answer | NoAnswer:
        answer = ask(call)
        if isinstance(answer, Answer):
            self.seen.append(answer)
        return answer


def _first_page(subscription: str, link: Link) -> object:
    return next(link.compute(subscription).list_all().by_page(None), None)


def _machine(resource: Resource, link: Link) -> object:
    return link.machine(resource)


def _is_windows(row: dict[str, Any]) -> bool:
    resource = resource_of(text_of(row, "id"))
    system = text_of(row, "properties.storageProfile.osDisk.osType").lower()
    return resource is not None and resource.type is Type.VIRTUAL_MACHINE and system != "linux"


def _power_state(machine: dict[str, Any]) -> str:
    codes = [text_of(one, "code") for one in objects_of(machine, "properties.instanceView.statuses")]
    return next((code.partition("/")[2].lower() for code in codes if code.lower().startswith("powerstate/")), "")


# --- the looks: each tells what it saw, or raises _Wrong or _Nothing --------------------------------------------------

Look = Callable[[_Walk], str]
_LOOKS: dict[str, Look] = {}
_CHECKS: list[Check] = []


def _look(title: str, *, name: str = "", is_required: bool = True) -> Callable[[Look], Look]:
    def listed(look: Look) -> Look:
        check = Check(name or look.__name__.removeprefix("_see_"), title, is_required)
        _CHECKS.append(check)
        _LOOKS[check.name] = look
        return look

    return listed


@_look("A token is to be had, and is taken")
def _see_sign_in(walk: _Walk) -> str:
    answer = walk.subscriptions
    return f"{walk.conf.credential} at {urlsplit(walk.conf.authority).hostname}, HTTP {answer.status}"


@_look("The token lasts five minutes or more")
def _see_token_lifetime(walk: _Walk) -> str:
    walk.subscriptions  # noqa: B018 (signs in)
    left = walk.link.token_ends_at() - walk.moment().timestamp()
    told = f"{left / 60:.0f} minutes left"
    if left < LEAST_TOKEN_SECONDS:
        raise _Wrong("it ends too soon", told)
    return told


@_look("TLS 1.2 or later, by a certificate that is trusted")
def _see_tls(walk: _Walk) -> str:
    try:
        found = walk.link.handshake(deadline=time.monotonic() + CALL_SECONDS)
    except (OSError, ssl.SSLError) as error:
        raise _Wrong(f"{type(error).__name__}: {error}"[:300]) from error
    if found is None:
        raise _Nothing("a proxy stands between")
    version, certificate = found
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    told = f"{version}, certificate of {', '.join(names) or 'no name'} until {certificate.get('notAfter', '?')}"
    if version not in {"TLSv1.2", "TLSv1.3"}:
        raise _Wrong("an old version", told)
    return told


@_look("The clocks differ by no more than five minutes")
def _see_clock(walk: _Walk) -> str:
    moment = walk.moment()
    answer = walk.ask(lambda link: link.get(inventory.SUBSCRIPTIONS))
    told = answer.headers.get("date", "")
    # Read as a pause until then is read, as of 1970.
    server = seconds_of(told, "Thu, 01 Jan 1970 00:00:00 GMT")
    if server is None:
        raise _Wrong("its answers have no date that can be read", told[:60])
    differ = server - moment.timestamp()
    if abs(differ) > MOST_CLOCK_SECONDS:
        raise _Wrong("too much", f"{differ:+.0f} s")
    return f"{differ:+.0f} s"


@_look("The subscriptions that the connection reads are seen")
def _see_subscriptions(walk: _Walk) -> str:
    told = {text_of(row, "subscriptionId").lower() for row in objects_of(walk.subscriptions.json, "value")}
    wanted = walk.conf.subscription_ids
    missing = [one for one in wanted if one not in told]
    if missing and not find(walk.subscriptions.json, "nextLink"):
        raise _Wrong(f"not seen: {', '.join(missing[:5])}", f"{len(told)} seen, {len(wanted)} wanted")
    return f"{len(told)} seen, {len(walk.read)} read"


def _see_permission(action: str, walk: _Walk) -> str:
    asked = list(walk.read)[:MOST_SUBSCRIPTIONS]
    answers = walk.link.each([partial(grants, one) for one in asked], deadline=time.monotonic() + CALL_SECONDS)
    without: list[str] = []
    for subscription, answer in zip(asked, answers, strict=True):
        if isinstance(answer, NoAnswer):
            raise _Wrong(silence(answer).detail or answer.why.value)
        if answer.status != 200:
            raise _Nothing(f"the grants are not told (HTTP {answer.status})")
        if lacking(list(objects_of(answer.json, "value")), [action]):
            without.append(subscription)
    if without:
        raise _Wrong(f"lacking in {', '.join(without[:5])}", f"{len(without)} of {len(asked)} subscriptions")
    return f"granted in {len(asked)} subscription{'s' if len(asked) > 1 else ''}"


for _action in NEEDED:
    _look(f"Permission {_action}", name=f"permission {_action}", is_required=_action not in SETTINGS)(
        partial(_see_permission, _action)
    )


@_look("Machines are listed")
def _see_machines(walk: _Walk) -> str:
    return f"{len(walk.rows)} on the first pages of {len(walk.pages)} subscriptions"


@_look("A second page brings other machines", is_required=False)
def _see_pages(walk: _Walk) -> str:
    subscription, address, first = _next_link(walk)
    pages = partial(_following, subscription, address)
    second = {text_of(row, "id").lower() for row in objects_of(walk.good(pages).json, "value")}
    if second & first:
        raise _Wrong("a machine comes twice", f"{len(second & first)} of {len(second)}")
    return f"{len(first)}, then {len(second)}"


def _following(subscription: str, address: str, link: Link) -> object:
    return next(link.compute(subscription).list_all().by_page(address), None)


def _next_link(walk: _Walk) -> tuple[str, str, set[str]]:
    for subscription, page in walk.pages.items():
        address = find(page.json, "nextLink")
        if isinstance(address, str) and address:
            if not is_ours(address, walk.conf.address):
                raise _Wrong("another host", urlsplit(address).netloc[:100])
            return subscription, address, {text_of(row, "id").lower() for row in objects_of(page.json, "value")}
    raise _Nothing("every list is one page")


@_look("The next page is at the same host", is_required=False)
def _see_next_link_host(walk: _Walk) -> str:
    _subscription, address, _first = _next_link(walk)
    return urlsplit(address).netloc[:100]


@_look("A machine is told with its instance view")
def _see_instance_view(walk: _Walk) -> str:
    count = sum(isinstance(find(view.json, "properties.instanceView"), dict) for view in walk.views)
    if count < len(walk.views):
        raise _Wrong("some have none", f"{count} of {len(walk.views)}")
    return f"{count} machines"


@_look("Power states are known words")
def _see_power_state(walk: _Walk) -> str:
    states = sorted({_power_state(view.json) for view in walk.views})
    if strange := [state for state in states if state not in _STATES]:
        raise _Wrong("not known", ", ".join(state[:40] or "none" for state in strange))
    return ", ".join(states)


@_look("patchStatus has the shape that is read", is_required=False)
def _see_patch_status(walk: _Walk) -> str:
    told = []
    for name, key in (
        ("availablePatchSummary", "assessmentActivityId"),
        ("lastPatchInstallationSummary", "installationActivityId"),
    ):
        for summary in filter(None, (summary_of(view.json, name) for view in walk.views)):
            status = word(text_of(summary, "status"), RunStatus, RunStatus.UNKNOWN)
            if status is RunStatus.UNKNOWN or not text_of(summary, key) or began_at(summary) is None:
                raise _Wrong(f"{name} without status, id or start", ", ".join(sorted(summary))[:200])
            told.append(f"{name}: {status}")
    if not told:
        raise _Nothing("Azure has assessed none of them yet")
    return "; ".join(dict.fromkeys(told))


@_look("The real version of Windows is read")
def _see_os_version(walk: _Walk) -> str:
    builds = sorted({build for view in walk.views if (build := build_of(view.json))})
    if not builds:
        told = sorted({text_of(view.json, "properties.instanceView.osVersion")[:60] for view in walk.views} - {""})
        if told:
            raise _Wrong("not in a form that is read", "; ".join(told))
        raise _Nothing("no agent reports a version: is one running?")
    return ", ".join(builds[:5])


@_look("Patch settings are read, and what would be sent for them is what is there")
def _see_settings(walk: _Walk) -> str:
    settings = settings_of(walk.machine.json)
    if settings is None:
        raise _Wrong("no Windows configuration")
    path = "osProfile.windowsConfiguration.patchSettings"
    sent, there = find(settings_body(settings)["properties"], path), find(walk.machine.json, f"properties.{path}")
    different = [
        name
        for name in _SETTINGS
        if (told := find(there, name)) is not None and str(find(sent, name)).lower() != str(told).lower()
    ]
    if different:
        raise _Wrong(f"read as something else: {', '.join(different)}", str({n: find(there, n) for n in different}))
    words = "on" if settings.enable_hotpatching else "off"
    return f"{settings.patch_mode}, {settings.assessment_mode}, hotpatch {words}"


@_look("The api-versions in use are taken")
def _see_api_versions(walk: _Walk) -> str:
    parts = urlsplit(inventory.SUBSCRIPTIONS).query, urlsplit(graph.ADDRESS).query
    walk.good(lambda link: link.get(inventory.SUBSCRIPTIONS))
    walk.rows_of_graph(graph.assessment(walk.resource))
    return f"virtual machines as the SDK asks; subscriptions {parts[0]}; Resource Graph {parts[1]}"


@_look("An api-version that does not exist is refused")
def _see_refused_version(walk: _Walk) -> str:
    answer = walk.ask(lambda link: link.get(f"{walk.resource.path}?api-version={_NO_VERSION}"))
    code, message = answer.error
    if answer.status != 400 or not code or not message:
        raise _Wrong("not as ARM does", f"HTTP {answer.status} {code}"[:200])
    return f"HTTP 400 {code}"


@_look("Rate limits are told and read", is_required=False)
def _see_rate_limits(walk: _Walk) -> str:
    left = counters(walk.machine)
    named = sorted(name for name in walk.machine.headers if name.startswith("x-ms-ratelimit-remaining"))
    if not named:
        raise _Nothing("the answers name none")
    if walk.machine.headers.get("x-ms-ratelimit-remaining-resource") and not left:
        raise _Wrong("not in a form that is read", walk.machine.headers["x-ms-ratelimit-remaining-resource"][:200])
    return ", ".join([*(f"{name} {count}" for name, count in left), *named])[:300]


@_look("Pauses can be read in both forms")
def _see_retry_after(walk: _Walk) -> str:
    walk.subscriptions  # noqa: B018 (asks at least once)
    unread = [
        pause
        for answer in walk.seen
        if (pause := answer.headers.get("retry-after")) is not None and answer.retry_after is None
    ]
    if unread:
        raise _Wrong("a pause in another form", unread[0][:60])
    date = walk.subscriptions.headers.get("date", "")
    if seconds_of(date, date) is None:
        raise _Wrong("a pause until a moment would not be read", date[:60])
    asked = sum("retry-after" in answer.headers for answer in walk.seen)
    return f"{asked} of {len(walk.seen)} answers asked for one; moments come as “{date}”"


@_look("A machine that does not exist is told as missing")
def _see_missing_machine(walk: _Walk) -> str:
    missing = Resource(walk.resource.subscription, walk.resource.group, _NOBODY, Type.VIRTUAL_MACHINE)
    answer = walk.ask(partial(_machine, missing))
    code, message = answer.error
    if answer.status != 404 or not code or not message or refusal(answer).code != ErrorCode.VM_GONE:
        raise _Wrong("not in ARM's envelope", f"HTTP {answer.status} {code}"[:200])
    return f"HTTP 404 {code}"


@_look("Ids are taken without their case")
def _see_ids_without_case(walk: _Walk) -> str:
    here = walk.resource
    other = Resource(here.subscription, here.group.swapcase(), here.name.swapcase(), here.type)
    answer = walk.good(partial(_machine, other))
    if text_of(answer.json, "properties.vmId").lower() != text_of(walk.machine.json, "properties.vmId").lower():
        raise _Wrong("another machine", text_of(answer.json, "id")[:300])
    return f"{other.group}/{other.name}"


@_look("Resource Graph answers for the last assessment")
def _see_graph_assessment(walk: _Walk) -> str:
    return walk.rows_of_graph(graph.assessment(walk.resource))


@_look("Resource Graph answers for what is available")
def _see_graph_available(walk: _Walk) -> str:
    return walk.rows_of_graph(graph.offered(walk.resource))


@_look("Resource Graph answers for installations")
def _see_graph_installations(walk: _Walk) -> str:
    return walk.rows_of_graph(graph.installations(walk.resource))


@_look("Resource Graph answers for what was installed")
def _see_graph_installed(walk: _Walk) -> str:
    return walk.rows_of_graph(graph.ever_installed(walk.resource))


@_look("Resource Graph tells its quota, and it is read", is_required=False)
def _see_graph_quota(walk: _Walk) -> str:
    told = [one for one in walk.seen if "x-ms-user-quota-remaining" in one.headers]
    if not told:
        raise _Nothing("the answers name none")
    left = told[-1].headers["x-ms-user-quota-remaining"]
    pause = graph.quota_pause(told[-1])
    if pause is None or not left.strip().lstrip("-").isdigit():
        raise _Wrong(
            "not in a form that is read", f"{left}, {told[-1].headers.get('x-ms-user-quota-resets-after', '')}"[:100]
        )
    return f"{left} left, again after {pause:.0f} s"


@_look("Requests are known by their ids")
def _see_request_id(walk: _Walk) -> str:
    here = walk.resource
    ours = str(uuid5(UUID(int=0), f"{walk.now.isoformat()}/{here.path}"))
    headers = {"x-ms-return-client-request-id": "true"}
    answer = walk.good(
        lambda link: link.compute(here.subscription).get(here.group, here.name, request_id=ours, headers=headers)
    )
    theirs = answer.headers.get("x-ms-request-id", "")
    if not theirs:
        raise _Wrong("the answer has no x-ms-request-id")
    echoed = answer.headers.get("x-ms-client-request-id", "")
    if echoed and echoed.lower() != ours:
        raise _Wrong("another id came back", echoed[:60])
    return f"{theirs[:60]}; ours {'came back' if echoed else 'did not come back'}"


@_look("The state of operations may be asked for, at the same host")
def _see_operation_address(walk: _Walk) -> str:
    location = quote(text_of(walk.machine.json, "location").lower().replace(" ", ""))
    here = walk.resource
    operation = uuid5(UUID(int=0), here.path)
    answer = walk.ask(
        lambda link: link.get(
            f"/subscriptions/{here.subscription}/providers/Microsoft.Compute/locations/{location}"
            f"/operations/{operation}?api-version={_OPERATIONS_VERSION}"
        )
    )
    code, _message = answer.error
    if answer.status not in {400, 404} or not code:
        raise _Wrong("one that does not exist is not told so", f"HTTP {answer.status} {code}"[:200])
    return f"{urlsplit(walk.conf.address).netloc}: HTTP {answer.status} {code}"


@_look("Each machine has the budget of its subscription and region")
def _see_budgets(walk: _Walk) -> str:
    if not walk.rows:
        raise _Nothing(_NO_MACHINE)
    places = {
        budget_of(Place(found.subscription, text_of(row, "location").replace(" ", "")))
        for row in walk.rows
        if (found := resource_of(text_of(row, "id"))) is not None
    }
    if any("unknown" in place for place in places):
        raise _Wrong("a machine without a region")
    return (
        f"{len(places)}: {STARTS_PER_MINUTE:.0f} starts a minute, {STARTS_AT_ONCE:.0f} at once, until answers say more"
    )


# --- the walk ---------------------------------------------------------------------------------------------------------


def walk(conf: Any, *, now: datetime) -> Iterator[Finding]:
    """Make every check with this configuration, one after the other; one finding each. Never raises."""
    from connectors.azure.connector import make  # which imports the SDKs

    try:
        begun = _Walk(make(conf, Catalogue((), ())).link, conf, now)
    except (OSError, LookupError, ValueError) as error:
        for check in _CHECKS:
            yield Finding(check.name, Verdict.FAILED, reason=str(error)[:500])
        return
    first, *others = _CHECKS
    yield (signed_in := _found(begun, first))
    for check in others:
        is_in = signed_in.verdict is Verdict.PASSED
        yield _found(begun, check) if is_in else Finding(check.name, Verdict.SKIPPED, reason="nobody is signed in")


def _found(begun: _Walk, check: Check) -> Finding:
    try:
        return Finding(check.name, Verdict.PASSED, _LOOKS[check.name](begun))
    except _Nothing as nothing:
        return Finding(check.name, Verdict.SKIPPED, reason=str(nothing))
    except _Wrong as wrong:
        return Finding(check.name, Verdict.FAILED, wrong.evidence, str(wrong))
    except Exception as error:  # whatever the other side does, the walk goes on
        return Finding(check.name, Verdict.FAILED, reason=f"{type(error).__name__}: {error}"[:300])


KIT = Kit(tuple(_CHECKS), walk)
