"""Service principals as pages and doors ask for them, and the places that roles are given on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Max, Q, QuerySet

from vms.models import ResourceGroup, RoleAssignment, Subscription, VirtualMachine
from vms.principal_models import PrincipalSecret, ServicePrincipal

Place = Subscription | ResourceGroup | VirtualMachine
_SUBSCRIPTION = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)(?:/resourcegroups/(?P<group>[^/]+))?", re.IGNORECASE
)


class NoSuchPlaceError(ValueError):
    """Nothing in the inventory has this id."""


def place_by_id(text: str) -> Place | None:
    """The place that a scope in Azure's way names, None for everything (`/`). Raises NoSuchPlaceError."""
    wanted = text.strip().rstrip("/")
    if not wanted and text.strip() == "/":
        return None
    found: Place | None = None
    if match := _SUBSCRIPTION.fullmatch(wanted):
        try:
            subscription = Subscription.objects.filter(subscription_id=UUID(match["subscription"])).first()
        except ValueError:
            subscription = None
        found = subscription
        if subscription and match["group"]:
            found = subscription.resource_groups.filter(name__iexact=match["group"]).first()
    elif wanted.startswith("/"):
        found = VirtualMachine.objects.filter(arm_id=wanted.lower()).first()
    if found is None:
        raise NoSuchPlaceError(text)
    return found


def usable_secrets(now: datetime) -> QuerySet[PrincipalSecret]:
    """The secrets that open something now: valid, and of principals that are on."""
    rows = PrincipalSecret.objects.filter(
        revoked_at__isnull=True, expires_at__gt=now, principal__account__is_active=True
    )
    return rows.select_related("principal__account")


def secret_by_text(text: str, *, now: datetime, app_id: UUID | None = None) -> PrincipalSecret | None:
    """The usable secret that has this text; with `app_id` only if it is that principal's.

    It is looked up by its digest, so that how long the search takes tells nothing of a secret.
    """
    rows = usable_secrets(now).filter(digest=hashlib.sha256(text.encode()).digest())
    return (rows.filter(principal__app_id=app_id) if app_id else rows).first()


def secret_by_id(secret_id: int, *, app_id: UUID, now: datetime) -> PrincipalSecret | None:
    """The secret that a token was issued for, if it still opens something (one query)."""
    return usable_secrets(now).filter(pk=secret_id, principal__app_id=app_id).first()


@dataclass(frozen=True, slots=True)
class ListedPrincipal:
    """A principal with how many of its secrets are valid, and when one was used last."""

    principal: ServicePrincipal
    valid_secrets: int
    last_used_at: datetime | None


def listed_principals(now: datetime) -> list[ListedPrincipal]:
    """Every principal by name (one query)."""
    valid = Q(secrets__revoked_at__isnull=True, secrets__expires_at__gt=now)
    rows = ServicePrincipal.objects.select_related("account").annotate(
        valid_secrets=Count("secrets", filter=valid), used_at=Max("secrets__last_used_at")
    )
    return [ListedPrincipal(row, row.valid_secrets, row.used_at) for row in rows]


def roles_of(principal: ServicePrincipal) -> Sequence[RoleAssignment]:
    """The roles that were given to it, with their places."""
    rows = RoleAssignment.objects.filter(user_id=principal.pk).order_by("pk")
    return list(rows.select_related("subscription", "resource_group__subscription", "vm"))
