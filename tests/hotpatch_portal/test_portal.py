"""The one-command stack: what can go wrong at its start is one sentence; what runs comes back."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from hotpatch_portal.stack.embedded import EmbeddedPostgres, EmbeddedRedis, StackError
from hotpatch_portal.stack.portal import Options, generated_password, secret_key, write_private
from tests.hotpatch_portal.conftest import CLEAN, ROOT

pytestmark = pytest.mark.stack


def options(**environment: str) -> Options:
    return Options.from_environment(environment, base_dir=ROOT)


def portal(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "portal"],
        cwd=ROOT,
        env=CLEAN | {"PORTAL_DIR": str(directory)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


# --- what the environment asks for -------------------------------------------------------------------------------


def test_the_demo_is_the_default_unless_the_database_is_yours() -> None:
    assert options().has_demo
    assert not options(DATABASE_URL="postgres://me@host/db").has_demo
    assert options(DATABASE_URL="postgres://me@host/db", DEMO="1").has_demo
    assert not options(DEMO="0").has_demo
    assert options(PORT="8123").url == "http://127.0.0.1:8123/"
    assert options(HOST="::1").url == "http://[::1]:8000/"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PORT": "http"}, "PORT=http is no number"),
        ({"PORT": "70000"}, "PORT=70000 is no number"),
        ({"DEMO": "maybe"}, "DEMO=maybe"),
        ({"DATABASE_URL": "mysql://host/db"}, "DATABASE_URL is not understood"),
        ({"REDIS_URL": "amqp://host"}, "REDIS_URL is not understood"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(StackError, match=words):
        options(**environment)


def test_a_port_in_use_is_one_sentence(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_one_sentence(portal(place / "p", PORT=str(port)), f"Port {port} is in use")


def test_a_directory_that_cannot_be_written_is_one_sentence(place: Path) -> None:
    (place / "file").write_text("")
    assert_one_sentence(portal(place / "file" / "p"), "cannot write to")


def test_a_database_that_does_not_answer_is_one_sentence(place: Path) -> None:
    done = portal(place / "p", PORT=str(free_port()), DATABASE_URL="postgres://me@127.0.0.1:1/db")
    assert_one_sentence(done, "The database could not be prepared")


def test_a_broker_that_does_not_answer_is_one_sentence(place: Path) -> None:
    environment = {"PORT": str(free_port()), "REDIS_URL": "redis://127.0.0.1:1/0"}
    assert_one_sentence(portal(place / "p", **environment), "Redis does not answer")


# --- small files -------------------------------------------------------------------------------------------------


def test_private_files_are_private_and_whole(place: Path) -> None:
    write_private(place / "a", "one")
    write_private(place / "a", "two")
    assert (place / "a").read_text() == "two"
    assert stat.S_IMODE((place / "a").stat().st_mode) == 0o600
    assert [path.name for path in place.iterdir()] == ["a"]


def test_the_secret_key_is_made_once(place: Path) -> None:
    first = secret_key(place / "key")
    assert len(first) >= 50
    assert secret_key(place / "key") == first


def test_passwords_differ() -> None:
    assert len({generated_password() for _ in range(50)}) == 50


# --- a running stack ---------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        access = directory / "access.json"
        self.log = directory.parent / "portal.log"
        began = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "portal"],
                cwd=ROOT,
                env=CLEAN | {"PORTAL_DIR": str(directory), "PORT": str(free_port()), "DEMO": "0"} | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # One that was killed leaves its own behind.
        self.wait_for(lambda: access.exists() and access.stat().st_mtime >= began, 300)
        self.access = json.loads(access.read_text())

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def children(self, word: str) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError):
                continue
            if parent == self.process.pid and word in command:
                found.append(int(entry.name))
        return found

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.access['url']}accounts/login/", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)


@pytest.fixture
def running(place: Path) -> Iterator[Running]:
    portal = Running(place / "p")
    yield portal
    if portal.process.poll() is None:
        portal.stop()


def assert_pages_come_while_clients_drip(running: Running) -> None:
    """A hundred clients send heads or bodies a byte at a time."""
    port = int(running.access["url"].rstrip("/").rsplit(":", 1)[1])
    head = b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    dripping = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for number, client in enumerate(dripping):
        client.sendall(head + (b"X-Slow: " if number % 2 else b"Content-Length: 100000\r\n\r\nlogin="))
    times = []
    ends_at = time.monotonic() + 6
    while time.monotonic() < ends_at:
        for client in dripping:
            client.sendall(b"a")
        began = time.monotonic()
        assert running.answers()
        times.append(time.monotonic() - began)
        time.sleep(0.2)
    for client in dripping:
        client.close()
    assert sorted(times)[int(len(times) * 0.95)] < 2, times


def test_it_runs_while_clients_drip_brings_back_what_dies_and_stops_clean(running: Running) -> None:
    assert stat.S_IMODE((running.directory / "access.json").stat().st_mode) == 0o600
    assert running.access["password"] == "", "without the demo nobody has a password yet"
    assert_pages_come_while_clients_drip(running)
    for word in ("stack.web", "worker-1@", "beat", "redis-server"):
        (pid,) = running.children(word)
        os.kill(pid, signal.SIGKILL)
        running.wait_for(lambda pid=pid, word=word: running.children(word) not in ([], [pid]), 20)  # type: ignore[misc]
    running.wait_for(running.answers, 20)
    second = portal(running.directory, PORT=str(free_port()))
    assert_one_sentence(second, "A portal is already running")
    assert running.stop() == 0
    assert not (running.directory / "access.json").exists()
    assert running.children("") == []


# --- every documented setting, once


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"DATABASE_URL": "mysql://"}, "DATABASE_URL is not understood"),
        ({"DATABASE_URL": "postgres://host:port/x"}, "DATABASE_URL is not understood"),
        ({"REDIS_URL": "amqp://host"}, "REDIS_URL is not understood"),
        ({"TIME_ZONE": "Mars/Phobos"}, "TIME_ZONE=Mars/Phobos is no time zone"),
        ({"SECRET_KEY": "x"}, "SECRET_KEY is too short"),
        ({"ALLOWED_HOSTS": "https://portal.example"}, "ALLOWED_HOSTS has"),
        ({"CSRF_TRUSTED_ORIGINS": "portal.example"}, "CSRF_TRUSTED_ORIGINS has"),
        ({"OFF_PEAK": "at night"}, "OFF_PEAK=at night is no two hours"),
        ({"PROBE_NETWORKS": "10.0.0.4/8"}, "PROBE_NETWORKS has"),
        ({"STATEMENT_TIMEOUT_MS": "soon"}, "STATEMENT_TIMEOUT_MS=soon is no number"),
        ({"DATABASE_POOL_SIZE": "-1"}, "DATABASE_POOL_SIZE=-1 is no number"),
        ({"KEEP_HISTORY_DAYS": "9" * 400}, "is no number"),
        ({"TRUSTED_PROXIES": "1.5"}, "TRUSTED_PROXIES=1.5 is no number"),
        ({"HTTPS": "maybe"}, "HTTPS=maybe is neither 1 nor 0"),
        ({"DEBUG": "2"}, "DEBUG=2 is neither 1 nor 0"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL=loud is not understood"),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT=xml is not understood"),
        ({"WORKER_LANES": "fast"}, "WORKER_LANES=fast is not understood"),
        ({"EMAIL_HOST": "smtp://mail.example.org"}, "EMAIL_HOST=smtp://mail.example.org is no host name"),
        ({"EMAIL_SECURITY": "ssl"}, "EMAIL_SECURITY=ssl is not understood"),
        ({"EMAIL_TIMEOUT": "60"}, "EMAIL_TIMEOUT=60 is no number"),
        ({"EMAIL_FROM": "Portal <portal>"}, "EMAIL_FROM=Portal <portal> is no mail address"),
        ({"PORTAL_URL": "portal.example.org"}, "PORTAL_URL is not understood"),
        ({"SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY_FILE=/no/such/file cannot be read"),
        ({"DATABASE_URL_FILE": "/no/such/file"}, "DATABASE_URL_FILE=/no/such/file cannot be read"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(place: Path, environment: dict[str, str], words: str) -> None:
    assert_one_sentence(portal(place / "p", PORT=str(free_port()), **environment), words)


KEY = "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQ"


def test_it_runs_with_every_setting_as_behind_a_proxy(place: Path) -> None:
    """HTTPS, proxies, names, key from a file, zone, limits: all of them at once, as a person would set them."""
    (place / "key").write_text(KEY)
    running = Running(
        place / "p", HTTPS="1", TRUSTED_PROXIES="1", ALLOWED_HOSTS="portal.example", SECRET_KEY_FILE=str(place / "key"),
        CSRF_TRUSTED_ORIGINS="https://portal.example", TIME_ZONE="Asia/Tokyo", DATABASE_POOL_SIZE="4", STATEMENT_TIMEOUT_MS="3000",
        KEEP_HISTORY_DAYS="30", OFF_PEAK="23:00-05:00", PROBE_NETWORKS="10.0.0.0/8,fd00::/8", LOG_LEVEL="WARNING", LOG_FORMAT="json",
        WORKER_KINDS="simulator", HOST="127.0.0.1", EMAIL_HOST="mail.example.org", EMAIL_SECURITY="tls", EMAIL_HOST_USER="portal",
        EMAIL_HOST_PASSWORD_FILE=str(place / "key"), EMAIL_FROM="Portal <portal@example.org>", EMAIL_TIMEOUT="3", EMAIL_PORT="465",
        PORTAL_URL="https://portal.example",
    )  # fmt: skip
    try:
        assert json.loads((running.directory / "environment.json").read_text())["SECRET_KEY"] == KEY
        where = f"{running.access['url']}accounts/login/"
        asked = urllib.request.Request(where, headers={"Host": "portal.example", "X-Forwarded-Proto": "https"})
        with urllib.request.urlopen(asked, timeout=5) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"]
            assert "no-cache" in answer.headers["Cache-Control"]
        plain = http.client.HTTPConnection("127.0.0.1", int(where.split(":")[2].split("/")[0]), timeout=5)
        plain.request("GET", "/accounts/login/", headers={"Host": "portal.example"})
        sent_on = plain.getresponse()
        assert (sent_on.status, sent_on.headers["Location"]) == (301, "https://portal.example/accounts/login/")
        plain.close()
        assert "Traceback" not in running.log.read_text()
    finally:
        assert running.stop() == 0


# --- power loss, own servers, and a downgrade


def test_after_a_power_loss_the_next_start_serves(place: Path) -> None:
    """Supervisor and PostgreSQL are killed, and a living stranger has the pid in PostgreSQL's lock files.

    The path of PORTAL_DIR is too long for sockets: those and their lock files lie elsewhere, and nothing stays there.
    """
    directory = place / ("long-" * 20)
    first = Running(directory)
    (server,) = first.children("bin/postgres")
    data = Path(f"/proc/{server}/cwd").resolve()
    notes = {*data.parent.glob("*-directory"), *directory.glob("*-directory")}
    elsewhere = sorted(Path(note.read_text()) for note in notes)
    for pid in (first.process.pid, server):
        os.kill(pid, signal.SIGKILL)
    first.process.wait(10)
    assert [path.name.rpartition("-")[0] for path in elsewhere] == ["hp-pg", "hp-redis"]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as stranger:
        for lock in (data / "postmaster.pid", *elsewhere[0].glob(".s.PGSQL.*.lock")):
            lock.write_text("\n".join([str(stranger.pid), *lock.read_text().split("\n")[1:]]))
        second = Running(directory, PORT=first.access["url"].rstrip("/").rpartition(":")[2])
        try:
            assert second.answers()
            assert {path for path in elsewhere if path.is_dir()} == set(elsewhere), "the same at every start"
            assert stranger.poll() is None
        finally:
            stranger.kill()
            assert second.stop() == 0
    assert not [path for path in elsewhere if path.exists()], "nothing is left behind"


def test_your_own_servers_with_the_demo_and_then_a_downgrade(place: Path) -> None:
    postgres, redis = EmbeddedPostgres(place / "own", is_throw_away=True), EmbeddedRedis(place / "own")
    postgres.start()
    redis.start()
    own = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url, "SECRET_KEY": KEY}
    try:
        running = Running(place / "p", **own, DEMO="1", DEBUG="1")
        try:
            assert running.answers()
            assert running.access["username"] == "admin"
            assert running.children("bin/postgres") + running.children("redis-server") == []
        finally:
            assert running.stop() == 0
        with psycopg.connect(postgres.url) as connection:
            connection.execute(
                "INSERT INTO django_migrations (app, name, applied) VALUES ('updates', '9999_of_tomorrow', now())"
            )
        assert_one_sentence(portal(place / "p", PORT=str(free_port()), **own), "updates.9999_of_tomorrow")
        for command in (
            ["hotpatch_portal.stack.web", "--port", str(free_port())],
            ["celery", "-A", "hotpatch_portal", "worker", "-c", "1"],
            ["celery", "-A", "hotpatch_portal", "beat", "--schedule", str(place / "beat")],
        ):
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=ROOT, env=CLEAN | own, capture_output=True, text=True, timeout=120, check=False
            )  # fmt: skip
            assert done.returncode == 1, command
            assert "updates.9999_of_tomorrow" in done.stderr, command
            assert "Traceback" not in done.stderr, command
    finally:
        redis.stop()
        postgres.stop()
