"""Service principals and their tokens: who gets one, what it opens, and what opens nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth import authenticate
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from arm_api import tokens
from arm_api.limits import BUCKETS, Limit
from audit.models import AuditEvent
from tests.arm_api.forgery import CODES, MISUSES, claims_of, misused
from tests.arm_api.programs import ORIGIN, RESOURCES, Program, make_program
from vms.principal_models import PrincipalSecret
from vms.services.principals import (
    MOST_SECRETS,
    PrincipalExistsError,
    TooManySecretsError,
    add_secret,
    create_principal,
    revoke_secret,
    switch_principal,
)

pytestmark = pytest.mark.django_db


def opens(program: Program) -> int:
    return int(program.get("/subscriptions", version=RESOURCES).status_code)


# --- principals ----------------------------------------------------------------------------------------------------


def test_a_secret_is_kept_as_a_digest_and_never_shown_again(program: Program) -> None:
    kept = PrincipalSecret.objects.get()
    assert program.secret.startswith("hps_")
    assert len(program.secret) > 40
    assert bytes(kept.digest) != program.secret.encode()
    assert kept.hint == program.secret[-4:]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM audit_auditevent e WHERE e::text LIKE %s", [f"%{program.secret[8:30]}%"])
        assert cursor.fetchone() == (0,)


def test_what_is_done_to_principals_is_kept(program: Program) -> None:
    revoke_secret(principal=program.principal, secret_id=program.secret_id, now=timezone.now())
    tags = set(AuditEvent.objects.filter(object_name="deployer").values_list("tag", flat=True))
    assert {"people:principal:create", "people:secret:create", "people:secret:revoke"} <= tags


def test_a_principal_is_no_person(program: Program) -> None:
    account = program.principal.account
    assert not account.has_usable_password()
    assert not account.is_staff
    assert not account.is_superuser
    assert authenticate(username=account.username, password=program.secret) is None
    account.set_password("a long enough password")
    account.save()
    form = {"login": account.username, "password": "a long enough password"}
    page = Client()
    page.post("/accounts/login/", form)
    assert "_auth_user_id" not in page.session


def test_names_are_taken_once(program: Program) -> None:
    with pytest.raises(PrincipalExistsError):
        create_principal(name="Deployer")


def test_secrets_have_a_number_and_a_length_of_life(program: Program) -> None:
    for days in (0, 731):
        with pytest.raises(ValueError, match="1 to 730 days"):
            add_secret(principal=program.principal, days=days)
    for _ in range(MOST_SECRETS - 1):
        add_secret(principal=program.principal, days=1)
    with pytest.raises(TooManySecretsError):
        add_secret(principal=program.principal, days=1)


# --- tokens --------------------------------------------------------------------------------------------------------


def test_client_credentials_get_a_token_that_opens_the_door(program: Program) -> None:
    answer = program.ask_token()
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["expires_in"] == 900
    told = claims_of(answer.json()["access_token"])
    assert told["tid"] == str(tokens.tenant_id())
    assert told["aud"] == ORIGIN
    assert told["appid"] == str(program.app_id)
    assert opens(program) == 200
    assert PrincipalSecret.objects.get().last_used_at is not None


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "hps_wrong"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_secret": "x" * 100_000}, 401, "invalid_client"),
        ({"client_id": str(uuid4())}, 401, "invalid_client"),
        ({"client_id": "no uuid"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"tenant": str(uuid4())}, 400, "invalid_request"),
        ({"scope": "https://management.azure.com/.default"}, 400, "invalid_target"),
        ({"scope": f"{ORIGIN}:8443/.default"}, 400, "invalid_target"),
        ({"scope": ""}, 400, "invalid_target"),
        ({"scope": "https://[/.default"}, 400, "invalid_target"),
    ],
)
def test_no_token_for(program: Program, changes: dict[str, str], status: int, error: str) -> None:
    answer = program.ask_token(**changes)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert "access_token" not in answer.json()


def test_the_secret_of_one_principal_opens_nothing_for_another(program: Program) -> None:
    other = make_program("other")
    assert program.ask_token(client_id=str(other.app_id)).status_code == 401


def test_a_managed_identity_gets_a_token_for_its_secret(program: Program) -> None:
    address = f"/metadata/identity/oauth2/token?api-version=2019-08-01&resource={ORIGIN}/"
    client = Client()
    answer = client.get(address, secure=True, headers={"X-IDENTITY-HEADER": program.secret})
    assert answer.status_code == 200
    found = answer.json()
    assert found["expires_on"].isdigit()
    program.bearer = found["access_token"]
    assert opens(program) == 200
    assert client.get(address, secure=True).status_code == 401
    assert client.get(address, secure=True, headers={"X-IDENTITY-HEADER": "hps_wrong"}).status_code == 401
    elsewhere = address.replace("testserver", "management.azure.com")
    assert client.get(elsewhere, secure=True, headers={"X-IDENTITY-HEADER": program.secret}).status_code == 400


def test_secrets_do_not_travel_without_tls(program: Program) -> None:
    form = {"grant_type": "client_credentials", "client_id": str(program.app_id), "client_secret": program.secret}
    tenant = tokens.tenant_id()
    answer = Client(REMOTE_ADDR="192.0.2.7").post(f"/{tenant}/oauth2/v2.0/token", form)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HttpsRequired")


# --- what opens nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", MISUSES)
def test_a_misused_token_opens_nothing(program: Program, how: str) -> None:
    assert opens(program) == 200
    bad = misused(program, how)
    answer = Client().get(
        f"/subscriptions?api-version={RESOURCES}", secure=True, headers={"Authorization": f"Bearer {bad}"}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == CODES.get(how, "InvalidAuthenticationToken")
    assert answer["WWW-Authenticate"].startswith("Bearer authorization_uri=")


def test_another_scheme_opens_nothing(program: Program) -> None:
    for scheme in ("Basic", "bearer2", "SharedKey"):
        answer = Client().get(
            f"/subscriptions?api-version={RESOURCES}",
            secure=True,
            headers={"Authorization": f"{scheme} {program.token()}"},
        )
        assert answer.status_code == 401


def test_revoked_means_now(program: Program) -> None:
    assert opens(program) == 200
    second, text = add_secret(principal=program.principal, days=30)
    assert revoke_secret(principal=program.principal, secret_id=program.secret_id, now=timezone.now())
    assert not revoke_secret(principal=program.principal, secret_id=program.secret_id, now=timezone.now())
    assert opens(program) == 401
    assert program.ask_token().status_code == 401
    program.secret, program.secret_id, program.bearer = text, second.pk, ""
    assert opens(program) == 200
    switch_principal(principal=program.principal, is_on=False)
    assert opens(program) == 401
    switch_principal(principal=program.principal, is_on=True)
    assert opens(program) == 200


def test_secrets_and_tokens_end_by_themselves(program: Program) -> None:
    program.token()
    with time_machine.travel(timezone.now() + timedelta(minutes=14), tick=False):
        assert opens(program) == 200
    with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=False):
        assert opens(program) == 401
    with time_machine.travel(timezone.now() + timedelta(days=31), tick=False):
        assert program.ask_token().status_code == 401


def test_a_session_opens_nothing_here(client: Client, chief: Any) -> None:
    client.force_login(chief)
    assert client.get(f"/subscriptions?api-version={RESOURCES}", secure=True).status_code == 401


def test_who_asks_costs_two_queries(program: Program) -> None:
    program.token()
    with CaptureQueriesContext(connection) as queries:
        assert opens(program) == 200
    assert len(queries) == 3  # the secret with its principal, the grants, the list


# --- what clients look up first ------------------------------------------------------------------------------------


def test_clients_find_everything_by_the_address_alone(client: Client) -> None:
    for path in ("/metadata/endpoints", "//metadata/endpoints", "/Metadata/Endpoints"):
        found = client.get("/metadata/endpoints?api-version=2022-09-01", secure=True, PATH_INFO=path).json()
        assert found["resourceManager"] == f"{ORIGIN}/"
        assert found["authentication"]["loginEndpoint"] == ORIGIN
    tenant = tokens.tenant_id()
    configuration = client.get(f"/{tenant}/v2.0/.well-known/openid-configuration", secure=True).json()
    assert configuration["token_endpoint"] == f"{ORIGIN}/{tenant}/oauth2/v2.0/token"
    for unnamed in ("common", "organizations"):
        assert client.get(f"/{unnamed}/v2.0/.well-known/openid-configuration", secure=True).json() == configuration
    assert client.get(f"/{uuid4()}/v2.0/.well-known/openid-configuration", secure=True).status_code == 400
    instances = client.get("/common/discovery/instance?api-version=1.1", secure=True).json()
    assert instances["metadata"][0]["aliases"] == ["testserver"]
    assert client.get(f"/{tenant}/discovery/v2.0/keys", secure=True).json() == {"keys": []}


# --- buckets -------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_what_is_in_it_and_is_filled_again() -> None:
    limit = Limit("test", 3, 1_000_000)
    slow = Limit("slow", 2, 0.001)
    assert [BUCKETS.take(slow, 1).left for _ in range(2)] == [1, 0]
    empty = BUCKETS.take(slow, 1)
    assert empty.is_empty
    assert 900 < empty.retry_after <= 1_000
    assert not BUCKETS.take(slow, 2).is_empty
    assert not any(BUCKETS.take(limit, 1).is_empty for _ in range(50))


def test_who_signs_in_too_often_has_to_wait(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BUCKETS, "clock", lambda: 7.0)
    statuses = {program.ask_token(client_secret="hps_wrong").status_code for _ in range(125)}
    assert statuses == {401, 429}
