"""Listing machines: subscription by subscription, first its virtual machines, each with its instance view, then its Arc machines.

A cursor says which subscriptions are left, what of the first one is being read, which page of it, and how much of that page was
told. It is all there is: the same cursor asked for again gives the same machines again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from connectors.azure.answers import Answer, NoAnswer, find, objects_of, text_of
from connectors.azure.configuration import CALL_SECONDS, AzureConfiguration
from connectors.azure.errors import refusal, silence
from connectors.azure.handles import is_ours
from connectors.azure.resources import Type, resource_of
from connectors.azure.results import patches_of
from connectors.catalogue import Catalogue
from connectors.protocol import ConnectorError, DiscoveredPage, DiscoveredVm, Unread, VmRef
from patching.codes import ErrorCode
from patching.terms import Patch

if TYPE_CHECKING:  # it imports the SDKs, and pages read the role that lies above this file
    from connectors.azure.link import Ask, Link

SUBSCRIPTIONS = "/subscriptions?api-version=2022-12-01"
STEP_SECONDS = 2 * CALL_SECONDS  # the list, then the instance views
VIEWS = 100  # machines told in one step: each costs a call
_MOST_SUBSCRIPTIONS = 2_000
_NOT_ALLOWED = frozenset({"subscriptionnotfound", "disabledsubscription", "readonlydisabledsubscription"})
# Nobody has Arc machines in this subscription, or in this cloud.
_NO_PROVIDER = frozenset(
    {
        *("missingsubscriptionregistration", "noregisteredproviderfound", "subscriptionnotregistered"),
        *("invalidresourcenamespace", "invalidresourcetype"),
    }
)
READS_ARC = f"{Type.ARC_MACHINE.value}/read"


@dataclass(frozen=True, slots=True)
class Cursor:
    """`left`: subscriptions still to read; `page`: the address of the page, empty: the first; `told`: machines of it.

    `is_arc`: the virtual machines of the first subscription were told, now come its Arc machines.

    `mark`, `at`, `power`: a page that was met before, kept after ever longer stretches, so that pages which repeat are found
    however many lie between.
    """

    left: tuple[str, ...]
    page: str = ""
    told: int = 0
    mark: str = ""
    at: int = 0
    power: int = 1
    is_arc: bool = False

    def __str__(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    def next_page(self, address: str) -> Cursor | None:
        """Behind this page; None where its address was met before."""
        digest = hashlib.sha256(address.encode()).hexdigest()[:16]
        if digest == self.mark:
            return None
        if self.at + 1 >= self.power:
            return replace(self, page=address, told=0, mark=digest, at=0, power=2 * self.power)
        return replace(self, page=address, told=0, at=self.at + 1)

    def next_list(self) -> Cursor | None:
        """The Arc machines of the subscription, then the next one; None where this was the last."""
        if not self.is_arc:
            return Cursor(self.left, is_arc=True)
        return Cursor(self.left[1:]) if len(self.left) > 1 else None


def cursor_of(text: str) -> Cursor:
    """The cursor that was kept. Raises ValueError if the text is not a cursor."""
    try:
        kept = json.loads(text)
        return Cursor(tuple(map(str, kept.pop("left"))), **kept)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no cursor") from error


def discovered(
    link: Link, conf: AzureConfiguration, cursor: str, *, deadline: float
) -> DiscoveredPage | ConnectorError:
    """The machines behind this cursor (empty: from the beginning)."""
    listing_by = min(deadline, time.monotonic() + CALL_SECONDS)
    if cursor:
        at = cursor_of(cursor)
    else:
        subscriptions = subscriptions_of(link, conf, listing_by)
        if isinstance(subscriptions, ConnectorError):
            return subscriptions
        if not subscriptions:
            return ConnectorError(ErrorCode.PERMISSION_MISSING, "Microsoft.Resources/subscriptions/read")
        at = Cursor(tuple(subscriptions))
    if not at.left:
        return DiscoveredPage([])
    answer = link.one(partial(_list, at, is_ours(at.page, conf.address)), deadline=listing_by)
    if isinstance(answer, NoAnswer):
        return silence(answer)
    if at.is_arc and (error := _not_looked_at(answer)) is not None:
        return _without_arc(at, error)
    if answer.status != 200 or not isinstance(find(answer.json, "value"), list):
        return _unlisted(answer, at.left[0])
    return _page(link, conf, at, answer, deadline)


def _list(at: Cursor, is_safe: bool, link: Link) -> object:
    """One page of a subscription's machines; the SDK asks for the first, and for the one behind an address."""
    subscription = at.left[0]
    rows = (
        link.hybrid(subscription).machines.list_by_subscription()
        if at.is_arc
        else link.compute(subscription).list_all()
    )
    return next(rows.by_page(at.page if is_safe and at.page else None), None)


def _not_looked_at(answer: Answer) -> ConnectorError | None:
    """Why a subscription's Arc machines are not listed, where that is no reason to give up its virtual machines.

    Without a detail: there are none.
    """
    if answer.status not in {400, 403, 404, 409}:
        return None
    code = answer.error[0].lower()
    if code in _NO_PROVIDER:
        return ConnectorError(ErrorCode.PERMISSION_MISSING)
    error = refusal(answer)
    if error.code != ErrorCode.PERMISSION_MISSING or code in _NOT_ALLOWED:
        return None
    return replace(error, detail=READS_ARC)


def _without_arc(at: Cursor, error: ConnectorError) -> DiscoveredPage:
    following = at.next_list()
    unread = [Unread(at.left[0], Type.ARC_MACHINE.value, error.detail)] if error.detail else []
    return DiscoveredPage([], str(following) if following else "", unread)


def subscriptions_of(link: Link, conf: AzureConfiguration, deadline: float) -> Sequence[str] | ConnectorError:
    """The subscriptions that are read: those of the configuration, or all that the principal sees."""
    return conf.subscription_ids or _subscriptions(link, conf, deadline)


def _subscriptions(link: Link, conf: AzureConfiguration, deadline: float) -> list[str] | ConnectorError:
    """The subscriptions that the principal sees, without those that are switched off."""
    found: dict[str, None] = {}
    address = SUBSCRIPTIONS
    seen: set[str] = set()
    while address and address not in seen and len(found) < _MOST_SUBSCRIPTIONS:
        seen.add(address)
        answer = link.one(partial(_get, address), deadline=deadline)
        if isinstance(answer, NoAnswer):
            return silence(answer)
        if answer.status != 200 or not isinstance(find(answer.json, "value"), list):
            return _unlisted(answer, "")
        for row in objects_of(answer.json, "value"):
            subscription = text_of(row, "subscriptionId").lower()
            if subscription and text_of(row, "state").lower() not in {"disabled", "deleted"}:
                found[subscription] = None
        address = _whole_text(find(answer.json, "nextLink"))
        if address and not is_ours(address, conf.address):
            return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "a page of subscriptions at another host")
    return list(found)


def _get(address: str, link: Link) -> object:
    return link.get(address)


def _unlisted(answer: Answer, subscription: str) -> ConnectorError:
    if answer.status == 200:
        return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "a list that is none", is_retryable=True)
    error = refusal(answer)
    if error.code == ErrorCode.VM_GONE or answer.error[0].lower() in _NOT_ALLOWED:
        return ConnectorError(ErrorCode.PERMISSION_MISSING, f"{subscription}: {error.detail}"[:500])
    return error


def _page(
    link: Link, conf: AzureConfiguration, at: Cursor, answer: Answer, deadline: float
) -> DiscoveredPage | ConnectorError:
    rows = list(objects_of(answer.json, "value"))
    now_told = rows[at.told : at.told + VIEWS]
    machines = [DiscoveredVm(document) for document in with_views(link, now_told, deadline=deadline)]
    if at.told + len(now_told) < len(rows):
        return DiscoveredPage(machines, str(replace(at, told=at.told + len(now_told))))
    address = _whole_text(find(answer.json, "nextLink"))
    following: Cursor | None
    if address:
        following = at.next_page(address) if is_ours(address, conf.address) else None
        if following is None:
            return ConnectorError(ErrorCode.CONNECTOR_GARBAGE, "pages that repeat, or lead to another host")
    else:
        following = at.next_list()
    return DiscoveredPage(machines, str(following) if following else "")


def _whole_text(value: object) -> str:
    """An address: it is kept whole or not at all."""
    return value if isinstance(value, str) else ""


def with_views(link: Link, rows: Sequence[dict[str, Any]], *, deadline: float) -> list[dict[str, Any]]:
    """These machines as Azure tells each by itself, with power state, OS and patch status; as they were listed, where it does not.

    Linux machines are not asked: they are counted, and that is all.
    """
    asked = [number for number, row in enumerate(rows) if _is_worth_a_view(row)]
    answers = link.each([partial(_view, rows[number]) for number in asked], deadline=deadline)
    found = list(rows)
    for number, answer in zip(asked, answers, strict=True):
        if isinstance(answer, NoAnswer) or answer.status != 200:
            continue
        if text_of(answer.json, "id").lower() == text_of(rows[number], "id").lower():
            found[number] = answer.json
    return found


def _is_worth_a_view(row: dict[str, Any]) -> bool:
    resource = resource_of(text_of(row, "id"))
    system = text_of(row, "properties.storageProfile.osDisk.osType").lower()
    return resource is not None and resource.type is Type.VIRTUAL_MACHINE and system != "linux"


def _view(row: dict[str, Any], ask: Ask) -> Answer | NoAnswer:
    resource = resource_of(text_of(row, "id"))
    assert resource is not None, "asked only of those that have one"
    return ask(lambda link: link.machine(resource))


def patches(rows: Iterable[dict[str, Any]], vm: VmRef, catalogue: Catalogue) -> tuple[Patch, ...]:
    """The patches that rows of Resource Graph tell."""
    told = (find(row, "properties") for row in rows)
    return patches_of((one for one in told if isinstance(one, dict)), vm.product_line, catalogue)
