"""`manage.py service_principal …`: make, list and stop the programs that are let in; the page's twin."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from arm_api.tokens import tenant_id
from audit.commands import SignedCommand
from vms.choices import Role
from vms.principal_models import ServicePrincipal
from vms.selectors import NoSuchPlaceError, listed_principals, place_by_id
from vms.services.principals import (
    LONGEST_DAYS,
    PrincipalExistsError,
    TooManySecretsError,
    add_secret,
    create_principal,
    revoke_secret,
    switch_principal,
)


class Command(SignedCommand):
    """Service principals and their secrets. A secret is printed once, when it is made."""

    help = "Service principals: programs that speak to this portal as they speak to Azure Resource Manager."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The action, and the principal that it concerns."""
        todo = parser.add_subparsers(dest="todo", required=True)
        make = todo.add_parser("create", help="make a principal with a role and a first secret")
        make.add_argument("name")
        make.add_argument("--role", choices=[role.value for role in Role], required=True)
        make.add_argument("--scope", default="/", help="/ (everything), or the id of a subscription, group or machine")
        add = todo.add_parser("secret", help="make a further secret")
        add.add_argument("name")
        for each in (make, add):
            each.add_argument(
                "--days", type=int, default=365, help=f"how long the secret is valid (1 to {LONGEST_DAYS})"
            )
        revoke = todo.add_parser("revoke", help="revoke the secret that ends in these characters")
        revoke.add_argument("name")
        revoke.add_argument("hint")
        for word in ("on", "off"):
            todo.add_parser(word, help=f"switch a principal {word}").add_argument("name")
        todo.add_parser("list", help="list the principals")

    def handle(self, *_args: Any, todo: str, **options: Any) -> None:
        """Do it, or end with one sentence that says why not."""
        if todo == "list":
            self._list()
        elif todo == "create":
            self._create(**options)
        elif todo == "secret":
            self._secret(_found(options["name"]), options["days"])
        elif todo == "revoke":
            self._revoke(_found(options["name"]), options["hint"])
        else:
            switch_principal(principal=_found(options["name"]), is_on=todo == "on")

    def _list(self) -> None:
        row: Any
        for row in listed_principals(timezone.now()):
            used = f"last used {row.last_used_at:%Y-%m-%d %H:%M} UTC" if row.last_used_at else "never used"
            one = row.principal
            state = "on " if one.account.is_active else "off"
            self.stdout.write(f"{state} {one.app_id}  {one.name}  {row.valid_secrets} valid secrets, {used}")

    def _create(self, *, name: str, role: str, scope: str, days: int, **_options: Any) -> None:
        try:
            place = place_by_id(scope)
            _check_days(days)
            principal = create_principal(name=name.strip()[:60], role=Role(role), on=place)
        except NoSuchPlaceError:
            raise CommandError(f"Nothing in the inventory has the id {scope}.") from None
        except PrincipalExistsError:
            raise CommandError(f"A service principal named {name} is there already.") from None
        self._secret(principal, days)

    def _secret(self, principal: ServicePrincipal, days: int) -> None:
        _check_days(days)
        try:
            secret, text = add_secret(principal=principal, days=days, label="command")
        except TooManySecretsError:
            raise CommandError(f"{principal.name} has as many valid secrets as it may have: revoke one.") from None
        self.stdout.write(f"tenant: {tenant_id()}")
        self.stdout.write(f"client id: {principal.app_id}")
        self.stdout.write(f"secret: {text}")
        self.stderr.write(f"The secret is shown this once; it is valid until {secret.expires_at:%Y-%m-%d}.")

    def _revoke(self, principal: ServicePrincipal, hint: str) -> None:
        secret = principal.secrets.filter(hint=hint[-4:], revoked_at__isnull=True).first()
        if secret is None or not revoke_secret(principal=principal, secret_id=secret.pk, now=timezone.now()):
            raise CommandError(f"No secret of {principal.name} that ends in {hint[-4:]} is valid.")


def _check_days(days: int) -> None:
    if not 1 <= days <= LONGEST_DAYS:
        raise CommandError(f"A secret is valid for 1 to {LONGEST_DAYS} days.")


def _found(name: str) -> ServicePrincipal:
    principal = ServicePrincipal.objects.filter(name__iexact=name).first()
    if principal is None:
        raise CommandError(f"There is no service principal named {name}.")
    return principal
