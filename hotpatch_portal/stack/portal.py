"""The one-command stack: servers, schema, demo, web, workers and beat, from an empty directory to a sign-in page."""

from __future__ import annotations

import errno
import fcntl
import http.client
import ipaddress
import json
import os
import secrets
import signal
import socket
import ssl
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import IO
from urllib.parse import urlsplit

from hotpatch_portal.counting import forget_counts
from hotpatch_portal.environment import DATABASE_SCHEMES, REDIS_SCHEMES, Environment, SettingError, is_guessable
from hotpatch_portal.stack.certificate import certificate_for
from hotpatch_portal.stack.embedded import EmbeddedPostgres, EmbeddedRedis, StackError, rotate
from hotpatch_portal.stack.supervisor import Child, Supervisor, say

ANSWER_SECONDS = 60.0
LET_GO_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment asks for."""

    base_dir: Path
    portal_dir: Path
    host: str
    port: int
    has_demo: bool
    database_url: str
    redis_url: str
    secret_key: str = ""
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: int = 0
    metrics_port: int = 0
    has_tls: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, base_dir: Path) -> Options:
        """Read HOST, PORT, DEMO, PORTAL_DIR, DATABASE_URL, REDIS_URL, SECRET_KEY and ALLOWED_HOSTS, and their files.

        Raises StackError naming the bad one.
        """
        env = Environment(environment)
        try:
            port = env.number("PORT", 8000, least=1, most=65_535)
            database_url = env.url("DATABASE_URL", "", DATABASE_SCHEMES)
            if database_url:
                env.database("DATABASE_URL", database_url)
            redis_url = env.url("REDIS_URL", "", REDIS_SCHEMES)
            demo = env.text("DEMO", "") or ("0" if database_url else "1")
            portal_dir = Path(env.text("PORTAL_DIR", "") or base_dir / ".portal").resolve()
            host = env.text("HOST", "") or "127.0.0.1"
            key = env.text("SECRET_KEY", "").strip()
            allowed_hosts = env.hosts("ALLOWED_HOSTS", "")
            proxies = env.number("TRUSTED_PROXIES", 0, least=0, most=100)
            metrics_port = env.number("METRICS_PORT", 0, least=0, most=65_535)
            env.token("METRICS_TOKEN")
            has_tls = env.flag("TLS")
        except SettingError as error:
            raise StackError(str(error)) from None
        if demo not in {"0", "1"}:
            raise StackError(f"DEMO={demo} is neither 0 nor 1.")
        if key and is_guessable(key):
            raise StackError(
                f"SECRET_KEY is too short or too simple ({len(key)} characters): give it 50 random ones, or unset it "
                "and one is generated."
            )
        return cls(
            base_dir, portal_dir, host, port, demo == "1", database_url, redis_url, key, tuple(allowed_hosts), proxies,
            metrics_port, has_tls,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where the portal answers."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 (a comparison)
        scheme = "https" if self.has_tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/"


# --- small files -------------------------------------------------------------------------------------------------


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def secret_key(path: Path) -> str:
    """The generated SECRET_KEY, made on the first call and kept."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        write_private(path, secrets.token_urlsafe(50))
        return path.read_text().strip()


def _unverified() -> ssl.SSLContext:
    """TLS without asking who answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def generated_password() -> str:
    """A password that can be typed: 20 letters and digits in groups, 100 bits and more."""
    alphabet = string.ascii_lowercase + string.digits
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def hold(directory: Path) -> IO[str]:
    """The lock of a PORTAL_DIR, which is made: whoever holds it alone starts servers there. Close it to let go."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise StackError(
            f"The portal cannot write to {directory} ({error.strerror}): set PORTAL_DIR to a directory you own."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StackError(
            f"A portal is already running on {directory}: stop it, or give this one a PORTAL_DIR of its own."
        ) from None
    return lock


# --- the stack ---------------------------------------------------------------------------------------------------


class Portal:
    """One running portal. `run` returns when it was told to stop; StackError says in one sentence why it cannot run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.directory = options.portal_dir
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedRedis | None = None
        self.environment: dict[str, str] = {}
        self._lock: IO[str] | None = None
        self._was_killed = False
        self._is_stopping = False
        self._supervisor: Supervisor | None = None

    def run(self) -> None:
        """Start everything, say where it is, keep it running, stop everything."""
        self._take_directory()
        self._check_port()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_soon)
        try:
            self._start_servers()
            password = self._prepare()
            supervisor = self._supervisor = Supervisor(
                self._children(),
                cwd=self.options.base_dir,
                broker_answers=self._broker_answers,
                servers=[self._revive_servers],
            )
            try:
                supervisor.start()
                if self._wait_until_it_answers(supervisor):
                    self._announce(password)
                if not self._is_stopping:
                    supervisor.run()
            finally:
                say("portal", "stopping")
                supervisor.stop()
        finally:
            (self.directory / "access.json").unlink(missing_ok=True)
            if self.redis:
                self.redis.stop()
            if self.postgres:
                self.postgres.stop()
        say("portal", "stopped; the data stays, run it again to continue")

    def _stop_soon(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_stopping:  # asked twice: do not wait for anybody
            for child in self._supervisor.children if self._supervisor else ():
                child.signal(signal.SIGKILL)
        self._is_stopping = True
        if self._supervisor:
            self._supervisor.stop_soon()

    # --- before anything runs

    def _take_directory(self) -> None:
        self._lock = hold(self.directory)
        # Only who was killed leaves it behind; its web server may need a moment to let go of the port.
        self._was_killed = (self.directory / "access.json").exists()
        for name in ("access.json", "environment.json"):
            (self.directory / name).unlink(missing_ok=True)
        forget_counts(self.directory)

    def _check_port(self) -> None:
        deadline = time.monotonic() + (LET_GO_SECONDS if self._was_killed else 0)
        while self._why_no_port():
            if time.monotonic() > deadline:
                raise StackError(self._why_no_port())
            time.sleep(0.2)

    def _why_no_port(self) -> str:
        """Why the port cannot be listened on; empty: it can."""
        family = socket.AF_INET6 if ":" in self.options.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.options.host, self.options.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return f"Port {self.options.port} is in use: choose another one, e.g. PORT={self.options.port + 1}."
                return (
                    f"Cannot listen on {self.options.host}:{self.options.port} ({error.strerror}): check HOST and PORT."
                )
        return ""

    # --- servers

    def _start_servers(self) -> None:
        say("portal", f"everything it keeps is in {self.directory}")
        if not self.options.database_url:
            self.postgres = EmbeddedPostgres(self.directory)
            self.postgres.start()
        if not self.options.redis_url:
            self.redis = EmbeddedRedis(self.directory)
            self.redis.start()
        hosts = {"localhost", "127.0.0.1", "[::1]"} | self._more_hosts()
        self.environment = {
            "DATABASE_URL": self.postgres.url if self.postgres else self.options.database_url,
            "REDIS_URL": self.redis.url if self.redis else self.options.redis_url,
            "SECRET_KEY": self.options.secret_key or secret_key(self.directory / "secret_key"),
            "PORTAL_DIR": str(self.directory),
            "ALLOWED_HOSTS": ",".join(self.options.allowed_hosts or sorted(hosts)),
            "HAS_DEMO": "1" if self.options.has_demo else "0",
            "TLS": "1" if self.options.has_tls else "0",
            "PYTHONUNBUFFERED": "1",
            # As root the workers run as root: whoever types `make up` as root knows.
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
        }
        for name in self.environment:  # settled from now on: for those that we start a file would win over the value
            os.environ.pop(f"{name}_FILE", None)
        write_private(self.directory / "environment.json", json.dumps(self.environment))

    def _more_hosts(self) -> set[str]:
        """The names this machine answers to when it listens on more than loopback."""
        host = self.options.host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return {host}
        if address.is_loopback:
            return set()
        return {socket.gethostname(), socket.getfqdn()} if address.is_unspecified else {host}

    def _revive_servers(self) -> None:
        for name, server in (("PostgreSQL", self.postgres), ("Redis", self.redis)):
            if server is None or server.process is None:
                continue
            if server.process.poll() is None:
                rotate(server.log)
                continue
            say("portal", f"{name} ended; starting it again")
            try:
                server.start()
            except StackError as error:
                say("portal", str(error))

    def _broker_answers(self) -> bool:
        if self.redis is not None:
            return self.redis.answers()
        from kombu import Connection

        try:
            with Connection(self.environment["REDIS_URL"], connect_timeout=1) as broker:
                broker.ensure_connection(max_retries=1, timeout=1)
        except Exception:  # whatever the trouble is: it does not answer
            return False
        return True

    # --- schema, translations, files, demo

    def _prepare(self) -> str:
        """Bring the database and the files up to date; the demo administrator's new password, empty without a demo."""
        if self.options.redis_url and not self._broker_answers():
            raise StackError("Redis does not answer at REDIS_URL: check its host, port and password.")
        say("portal", "preparing the database and the files")
        self._manage("compile_translations")
        self._manage("migrate", "--no-input", "--verbosity", "0", failure="The database could not be prepared")
        self._manage("collectstatic", "--no-input", "--verbosity", "0")
        self._manage("seed_catalogue", "--keep-corrections")
        self._manage("refresh_words")  # what an upgrade judges otherwise is told otherwise from the first page on
        if not self.options.has_demo:
            return ""
        say("portal", "preparing the demo fleet")
        self._manage("seed_demo")
        password = generated_password()
        self._manage("set_demo_password", text=password)
        return password

    def _manage(self, *arguments: str, text: str = "", failure: str = "") -> None:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=self.options.base_dir,
            env=os.environ | self.environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
            told = ("connection failed", "FATAL", "(portal.E")
            reason = next((line for line in lines if any(word in line for word in told)), lines[-1])
            raise StackError(f"{failure or f'manage.py {arguments[0]} failed'}: {reason.strip()}")

    # --- processes

    def _children(self) -> list[Child]:
        python = sys.executable
        celery = [python, "-m", "celery", "-A", "hotpatch_portal", "--quiet"]
        calm = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
        run = self.directory / "heartbeat"
        run.mkdir(exist_ok=True)

        def worker(name: str, queue: str, lanes: str, processes: int) -> Child:
            heartbeat = run / name
            return Child(
                name,
                [
                    *celery,
                    "worker",
                    "--queues",
                    queue,
                    "--concurrency",
                    str(processes),
                    "--hostname",
                    f"{name}@%h",
                    *calm,
                ],
                self.environment | {"WORKER_HEARTBEAT_FILE": str(heartbeat), "WORKER_LANES": lanes},
                heartbeat=heartbeat,
            )

        where = ["--host", self.options.host, "--port", str(self.options.port)]
        web = [python, "-m", "hotpatch_portal.stack.web"]
        beat = [
            *celery,
            "beat",
            "--schedule",
            str(self.directory / "beat-schedule"),
            "--pidfile",
            "",
            "--loglevel",
            "WARNING",
        ]
        children = [
            *self._front(web, where),
            worker("worker-1", "interactive", "interactive", 2),
            worker("worker-2", "bulk", "all", 1),
            Child("beat", beat, self.environment),
        ]
        if self.options.metrics_port:
            children.append(Child("metrics", [python, "manage.py", "serve_metrics"], self.environment))
        return children

    def _front(self, web: list[str], where: list[str]) -> list[Child]:
        """What listens at the portal's address: the web processes, or TLS before them."""
        if not self.options.has_tls:
            return [Child("web", [*web, *where], self.environment)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            inner = str(free.getsockname()[1])
        certificate, key = certificate_for(self.directory / "tls", self._certificate_names())
        say("portal", f"the certificate for clients is {certificate}")
        tls = [sys.executable, "-m", "hotpatch_portal.stack.tls", *where, "--to", inner]
        return [
            Child("web", [*web, "--host", "127.0.0.1", "--port", inner, "--behind-tls"], self.environment),
            Child("tls", [*tls, "--certificate", str(certificate), "--key", str(key)], self.environment),
        ]

    def _certificate_names(self) -> set[str]:
        names = {"localhost", "127.0.0.1", "::1", *self.environment["ALLOWED_HOSTS"].split(",")}
        return {name for name in names if name}

    def _wait_until_it_answers(self, supervisor: Supervisor) -> bool:
        deadline = time.monotonic() + ANSWER_SECONDS
        address = f"{self.options.url}accounts/login/"
        while not self._is_stopping:
            supervisor.check()
            status = self._ask()
            if status == HTTPStatus.OK:
                return True
            if status and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise StackError(
                    f"The portal answers {status} at {address}: check ALLOWED_HOSTS, HTTPS and TRUSTED_PROXIES."
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"The portal did not answer at {address} within {ANSWER_SECONDS:.0f} s; see the lines above."
                )
            time.sleep(0.1)
        return False

    def _ask(self) -> int:
        """The status of the sign-in page, asked for as a proxy would; 0: nobody answers."""
        names = self.environment["ALLOWED_HOSTS"].split(",")
        name = next((name for name in ("127.0.0.1", "localhost", "*") if name in names), names[0])
        headers = {
            "Host": "localhost" if name == "*" else f"portal{name}" if name.startswith(".") else name,
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": ", ".join(["127.0.0.1"] * max(1, self.options.trusted_proxies)),
        }
        where = urlsplit(self.options.url)
        host = where.hostname or "127.0.0.1"
        question = http.client.HTTPConnection(host, where.port, timeout=2)
        if self.options.has_tls:
            # Whether it is the portal that answers is not asked here, and nothing secret is said.
            question = http.client.HTTPSConnection(host, where.port, timeout=2, context=_unverified())
        try:
            question.request("GET", f"{where.path}accounts/login/", headers=headers)
            return question.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            question.close()

    def _announce(self, password: str) -> None:
        access = {"url": self.options.url, "username": "admin" if password else "", "password": password}
        write_private(self.directory / "access.json", json.dumps(access))
        lines = ["", f"  Hotpatch Portal is running at {self.options.url}"]
        if password and sys.stdout.isatty():
            lines += [f"  Sign in as admin with the password {password}", "  (a new one at every start of the demo)"]
        elif password:  # a log is no place for a password
            lines += [f"  Sign in as admin; the password is in {self.directory / 'access.json'}"]
        else:
            lines += ["  The first administrator comes from: .venv/bin/python manage.py createsuperuser"]
        lines += ["  Ctrl-C stops it; the data stays.", ""]
        print("\n".join(lines), flush=True)  # noqa: T201 (the terminal is this program's page)
