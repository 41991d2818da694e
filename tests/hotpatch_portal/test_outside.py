"""What is seen from outside: probes get an answer however they ask, strangers learn nothing, and no count is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django.fixtures import Settings

from hotpatch_portal import metrics, outside
from hotpatch_portal.checks import open_metrics
from hotpatch_portal.environment import Environment, SettingError
from hotpatch_portal.management.commands.serve_metrics import application
from tests.factories import ConnectionFactory, OperationFactory
from updates.engine import telemetry
from updates.engine.telemetry import Called, Moved
from updates.models import Bucket, WorkerHeartbeat
from updates.services.workers import forget_workers, hear

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests-0123456789-abcdefghij"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def looks_anew() -> Iterator[None]:
    outside.readiness.forget()
    yield
    outside.readiness.forget()


@pytest.fixture
def token(settings: Settings) -> None:
    settings.METRICS_TOKEN = TOKEN


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and labels."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


# --- probes ------------------------------------------------------------------------------------------------------


def test_a_probe_is_answered_whatever_it_calls_the_host_and_without_tls(client: Client, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.ALLOWED_HOSTS = ["portal.example"]
    hear(name="worker-1@here")
    for where in ("/healthz", "/readyz"):
        for method in ("get", "head"):
            answer = getattr(client, method)(where, headers={"Host": "10.1.2.3:8000"})
            assert answer.status_code == 200, where
            assert answer["Cache-Control"] == "no-store"
            assert not answer.cookies
        assert client.post(where).status_code == 405
    assert client.get("/tour/", headers={"Host": "10.1.2.3:8000"}).status_code == 400


def test_the_process_answers_without_a_database(client: Client, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        answer = client.get("/healthz", headers={"Cookie": "sessionid=of-nobody"})
    assert answer.content == b"ok\n"
    assert not Session.objects.exists()


def test_ready_means_a_worker_was_heard_of_within_a_minute(client: Client) -> None:
    assert client.get("/readyz").status_code == 503
    outside.readiness.forget()
    hear(name="worker-1@here")
    assert client.get("/readyz").content == b"ok\n"
    outside.readiness.forget()
    WorkerHeartbeat.objects.update(heard_at=timezone.now() - timedelta(seconds=70))
    assert client.get("/readyz").content == b"not ok\n"


def test_many_questions_are_one_look(client: Client, django_assert_max_num_queries: Any) -> None:
    hear(name="worker-1@here")
    with django_assert_max_num_queries(6):  # has_table, migrations, and a bounded read with its transaction
        for _ in range(20):
            client.get("/readyz")


def test_a_missing_migration_is_not_ready(client: Client, token: None) -> None:
    hear(name="worker-1@here")
    MigrationRecorder(connection).record_unapplied("updates", "0001_initial")
    assert client.get("/readyz", headers=BEARER).content.decode() == (
        "not ok\nmigrations: updates.0001_initial is not applied (1 in all); run manage.py migrate\n"
    )
    MigrationRecorder(connection).record_applied("updates", "0001_initial")
    MigrationRecorder(connection).record_applied("updates", "9999_of_tomorrow")
    outside.readiness.forget()
    assert b"updates.9999_of_tomorrow is not known" in client.get("/readyz", headers=BEARER).content


def test_strangers_learn_no_reason(
    client: Client, token: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*, seconds: float) -> None:
        raise OperationalError('connection to server at "db.internal" failed\nsecond line')

    monkeypatch.setattr(outside, "seconds_since_a_worker", away)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        answer = client.get("/readyz", headers=headers)
        assert (answer.status_code, answer.content) == (503, b"not ok\n")
    assert b'database: connection to server at "db.internal" failed\n' in client.get("/readyz", headers=BEARER).content
    told = [record for record in caplog.records if "not_ready" in str(record.msg)]
    assert len(told) == 1, "one line when it changes, however often it is asked"


def test_without_a_token_set_nobody_holds_it(client: Client) -> None:
    for header in ("Bearer ", "Bearer", "", "Bearer x"):
        request = RequestFactory().get("/readyz", headers={"Authorization": header})
        assert not outside.holds_token(request)


def test_while_somebody_looks_for_long_the_others_do_not_wait() -> None:
    readiness = outside.Readiness()
    readiness._looking.acquire()
    assert readiness.ask() == ("database: no answer yet",)


# --- workers -----------------------------------------------------------------------------------------------------


def test_a_worker_writes_seldom_and_is_forgotten_after_a_day() -> None:
    hear(name="worker-1@here")
    first = WorkerHeartbeat.objects.get().heard_at
    hear(name="worker-1@here")
    assert WorkerHeartbeat.objects.get().heard_at == first
    for away in (timedelta(seconds=-30), timedelta(hours=3)):  # a clock that was set back left the second
        WorkerHeartbeat.objects.update(heard_at=first + away)
        hear(name="worker-1@here")
        assert abs(WorkerHeartbeat.objects.get().heard_at - timezone.now()) < timedelta(minutes=1)
    assert forget_workers(now=timezone.now()) == 0
    assert forget_workers(now=timezone.now() + timedelta(days=2)) == 1


# --- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_are_for_the_holder_of_the_token(client: Client, token: None) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {TOKEN}x"}):
        refused = client.get("/metrics", headers=headers)
        assert refused.status_code == 401
        assert refused["WWW-Authenticate"] == "Bearer"
        assert b"hotpatch" not in refused.content
    answer = client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    assert not answer.cookies


def test_what_waits_and_runs_is_counted_by_connection(client: Client, token: None, settings: Settings) -> None:
    connection_ = ConnectionFactory(name='Osaka "A"\n', paused_until=timezone.now() + timedelta(seconds=60))
    for vm in [OperationFactory(vm__connection=connection_).vm for _ in range(3)]:
        assert vm.connection == connection_
    OperationFactory(vm__connection=connection_, in_progress=True)
    hear(name="worker-1@here")
    found = samples(client.get("/metrics", headers=BEARER).content.decode())
    labels = 'connection="Osaka \\"A\\"\\n",connector="simulator"'
    assert found[f"hotpatch_operations_queued{{{labels}}}"] == 3
    assert found[f"hotpatch_operations_in_flight{{{labels}}}"] == 1
    assert 0 <= found[f"hotpatch_operations_overdue_seconds{{{labels}}}"] < 60
    assert 50 < found[f"hotpatch_connection_paused_seconds{{{labels}}}"] <= 60
    assert 0 <= found['hotpatch_worker_silent_seconds{worker="worker-1@here"}'] < 10
    assert found["hotpatch_database_answered"] == 1
    assert found[f'hotpatch_build_info{{version="{settings.VERSION}"}}'] == 1


def test_metrics_without_a_database_say_so(client: Client, token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*, seconds: float) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(metrics, "measure_load", away)
    found = samples(client.get("/metrics", headers=BEARER).content.decode())
    assert found["hotpatch_database_answered"] == 0
    assert not any(name.startswith("hotpatch_operations_queued") for name in found)


def test_a_scrape_costs_the_same_for_every_fleet(client: Client, token: None, django_assert_num_queries: Any) -> None:
    for count in (1, 20):
        for _ in range(count):
            OperationFactory()
        with django_assert_num_queries(6):  # a savepoint and its release, the time-out, connections, workers, budgets
            client.get("/metrics", headers=BEARER)


def test_pages_are_timed_by_the_name_of_their_view(client: Client, token: None) -> None:
    for where in ("/tour/", "/tour/?q=1", "/nothing/here/", "/nothing/there/", "/.env"):
        client.get(where)
    client.generic("SPOOF", "/tour/")
    text = client.get("/metrics", headers=BEARER).content.decode()
    found = samples(text)
    assert found['hotpatch_web_request_seconds_count{method="GET",status="3xx",view="tour"}'] >= 2
    assert found['hotpatch_web_request_seconds_count{method="GET",status="4xx",view="none"}'] >= 3
    assert "SPOOF" not in text
    assert ".env" not in text


def test_transitions_and_calls_are_counted(client: Client, token: None) -> None:
    before = samples(client.get("/metrics", headers=BEARER).content.decode())
    metrics.count_moved(Moved("installation", "queued", "starting", "", 7, 0.01))
    metrics.count_called(Called(ConnectionFactory().pk, "start", "answered", 6, 0.2))
    metrics.count_called(Called(0, "find", "failed", 1, 0.2))  # it was removed meanwhile
    after = samples(client.get("/metrics", headers=BEARER).content.decode())
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['hotpatch_operation_transitions_total{from="queued",kind="installation",to="starting"}'] == 7
    labels = 'call="start",connector="simulator",outcome="answered"'
    assert grown[f"hotpatch_connector_operations_total{{{labels}}}"] == 6
    assert grown[f"hotpatch_connector_call_seconds_count{{{labels}}}"] == 1
    assert grown['hotpatch_connector_operations_total{call="find",connector="unknown",outcome="failed"}'] == 1


def test_the_engine_is_listened_to_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "on_moved", [])
    monkeypatch.setattr(telemetry, "on_called", [])
    for _ in range(2):
        metrics.listen()
    assert telemetry.on_moved == [metrics.count_moved]
    assert telemetry.on_called == [metrics.count_called]


def test_budgets_that_rest_are_told(client: Client, token: None) -> None:
    connection_ = ConnectionFactory(name="Azure")
    now = timezone.now()
    for name, until in (("a:westeurope", now + timedelta(seconds=60)), ("a:northeurope", now), ("", None)):
        Bucket.objects.create(connection=connection_, name=name, refilled_at=now, not_before=until)
    found = samples(client.get("/metrics", headers=BEARER).content.decode())
    resting = {name: value for name, value in found.items() if name.startswith("hotpatch_budget_resting")}
    assert list(resting) == ['hotpatch_budget_resting_seconds{budget="a:westeurope",connection="Azure"}']
    assert 50 < next(iter(resting.values())) <= 60


# --- several processes -------------------------------------------------------------------------------------------

COUNTS = """
import os, sys
import django
django.setup()
from django.conf import settings
from hotpatch_portal.counting import start_counting
start_counting(settings.PORTAL_DIR)
from hotpatch_portal import metrics
from updates.engine.telemetry import Moved
assert metrics.count_moved in metrics.telemetry.on_moved
metrics.count_moved(Moved("assessment", "queued", "starting", "", 2, 0.0))
pid = os.fork()
metrics.count_moved(Moved("assessment", "queued", "starting", "", 3, 0.0))
metrics.REQUESTS.labels("tour", "GET", "2xx").observe(0.03)
if pid:
    os.waitpid(pid, 0)
"""


def test_no_count_is_lost_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {"PORTAL_DIR": str(tmp_path)}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    directory = tmp_path / "metrics"
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory))
    name = 'hotpatch_operation_transitions_total{from="queued",kind="assessment",to="starting"}'
    for runs in (1, 2):
        subprocess.run([sys.executable, "-c", COUNTS], cwd=ROOT, env=environment, check=True)
        (directory / "counter_999999999.db").write_bytes(b"")  # killed before it wrote anything
        for _ in range(2):
            found = samples(metrics.render().decode())
            assert found[name] == 8 * runs
            assert found['hotpatch_web_request_seconds_count{method="GET",status="2xx",view="tour"}'] == 2 * runs
    assert {path.name for path in directory.iterdir()} == {"counter_0.db", "histogram_0.db", "lock"}
    assert directory.stat().st_mode & 0o777 == 0o700


# --- a port of its own -------------------------------------------------------------------------------------------


def ask(path: str = "/metrics", method: str = "GET", **environ: str) -> tuple[str, bytes]:
    said: list[str] = []
    request = RequestFactory().generic(method, path, **environ)
    body = application(request.environ, lambda status, _headers: said.append(status))
    return said[0], b"".join(body)


def test_the_port_of_its_own_serves_metrics_alone(settings: Settings) -> None:
    status, body = ask()
    assert status == "200 OK"
    assert b"hotpatch_build_info" in body
    assert ask("/")[0] == "404 Not Found"
    assert ask("/healthz")[0] == "404 Not Found"
    assert ask(method="POST")[0] == "405 Method Not Allowed"
    settings.METRICS_TOKEN = TOKEN
    assert ask()[0] == "401 Unauthorized"
    assert ask(HTTP_AUTHORIZATION=f"Bearer {TOKEN}")[0] == "200 OK"


def test_a_port_that_others_reach_takes_a_token(settings: Settings) -> None:
    with pytest.raises(CommandError, match="METRICS_PORT is not set"):
        call_command("serve_metrics")
    settings.METRICS_PORT = 9_091
    assert open_metrics() == []
    settings.METRICS_HOST = "0.0.0.0"
    assert [error.id for error in open_metrics()] == ["portal.E011"]
    with pytest.raises(CommandError, match="shows the metrics to whoever reaches it"):
        call_command("serve_metrics")
    settings.METRICS_TOKEN = TOKEN
    assert open_metrics() == []


@pytest.mark.parametrize(
    "value", ["short", "with a space in it 0123456789 abcdefghij", "ünicode-0123456789-0123456789-0123456789"]
)
def test_a_token_that_is_none_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(SettingError) as refused:
        Environment({"METRICS_TOKEN": value}).token("METRICS_TOKEN")
    assert value not in str(refused.value)
    assert "METRICS_TOKEN" in str(refused.value)


# --- what is documented ------------------------------------------------------------------------------------------

NAME = re.compile(r"\bhotpatch_[a-z_]+\b")


def exported() -> set[str]:
    """The name of every sample that there can be."""
    names = set()
    for family in metrics._Portal().collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("name", ["dashboards/hotpatch-portal.json", "dashboards/alerts.yml"])
def test_dashboard_and_alerts_name_only_metrics_that_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text()
    used = set(NAME.findall(text)) - {"hotpatch_portal"}
    assert used
    assert used - exported() == set()


def test_every_metric_is_documented_and_on_the_dashboard() -> None:
    document = (ROOT / "docs/operations.md").read_text()
    dashboard = (ROOT / "docs/dashboards/hotpatch-portal.json").read_text()
    families = {family.name for family in metrics._Portal().collect()}
    assert {name for name in families if f"`{name}" not in document} == set()
    assert {name for name in families if name not in dashboard} == set()


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((ROOT / "docs/dashboards/hotpatch-portal.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 8
    assert all(panel["targets"] and panel["title"] for panel in dashboard["panels"])
