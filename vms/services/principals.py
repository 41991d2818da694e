"""Service principals: making them, their secrets, and switching them off."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from vms.choices import Role
from vms.principal_models import PrincipalSecret, ServicePrincipal
from vms.services.roles import assign_role

if TYPE_CHECKING:
    from vms.models import ResourceGroup, Subscription, VirtualMachine

# The name has a slash, which no form accepts in a person's name: so the two never collide.
ACCOUNT_PREFIX = "app/"
SECRET_PREFIX = "hps_"  # noqa: S105 (what a secret begins with, so that scanners find one that leaked)
LONGEST_DAYS = 730
MOST_SECRETS = 10  # valid at the same time
USE_NOTED_EVERY = timedelta(minutes=1)


class PrincipalExistsError(ValueError):
    """A service principal of this name is there already."""


class TooManySecretsError(ValueError):
    """So many secrets of this principal are valid that no further one is made."""


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


@transaction.atomic
def create_principal(
    *, name: str, role: Role | None = None, on: Subscription | ResourceGroup | VirtualMachine | None = None
) -> ServicePrincipal:
    """Make a principal, with this role on this scope (None: everything) if one is named. Raises PrincipalExistsError."""
    try:
        with transaction.atomic():
            account = User.objects.create(
                username=f"{ACCOUNT_PREFIX}{name}", password=f"{UNUSABLE_PASSWORD_PREFIX}{secrets.token_urlsafe(30)}"
            )
            principal = ServicePrincipal.objects.create(account=account, name=name)
    except IntegrityError as error:
        raise PrincipalExistsError(name) from error
    if role is not None:
        assign_role(role=role, on=on, users=[account])
    return principal


@transaction.atomic
def add_secret(
    *, principal: ServicePrincipal, days: int, label: str = "", now: datetime | None = None
) -> tuple[PrincipalSecret, str]:
    """Make a secret that is valid for so many days (1 to 730); it and its text, which nobody can read afterwards.

    Raises TooManySecretsError.
    """
    if not 1 <= days <= LONGEST_DAYS:
        raise ValueError(f"a secret is valid for 1 to {LONGEST_DAYS} days, not {days}")
    moment = now or timezone.now()
    ServicePrincipal.objects.select_for_update().get(pk=principal.pk)
    if principal.secrets.filter(revoked_at__isnull=True, expires_at__gt=moment).count() >= MOST_SECRETS:
        raise TooManySecretsError(principal.name)
    # Without "-": the end of a secret names it on the command line, where that would begin an option.
    text = f"{SECRET_PREFIX}{secrets.token_urlsafe(32).replace('-', '_')}"
    secret = PrincipalSecret.objects.create(
        principal=principal,
        label=label,
        digest=digest_of(text),
        hint=text[-4:],
        expires_at=moment + timedelta(days=days),
    )
    return secret, text


@transaction.atomic
def revoke_secret(*, principal: ServicePrincipal, secret_id: int, now: datetime) -> bool:
    """Let this secret, and every token that was issued for it, open nothing from now on. False: it was revoked before."""
    rows = principal.secrets.filter(pk=secret_id, revoked_at__isnull=True)
    return bool(rows.update(revoked_at=now))


@transaction.atomic
def switch_principal(*, principal: ServicePrincipal, is_on: bool) -> None:
    """Let the principal in, or not; its roles and secrets stay."""
    User.objects.filter(pk=principal.pk).exclude(is_active=is_on).update(is_active=is_on)


def note_use(*, secret_id: int, now: datetime) -> None:
    """Keep that a token was issued for this secret, at most once a minute."""
    due = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - USE_NOTED_EVERY)
    PrincipalSecret.objects.filter(due, pk=secret_id).update(last_used_at=now)
