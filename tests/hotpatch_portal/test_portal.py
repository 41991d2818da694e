"""The one-command stack: what can go wrong at its start is one sentence; what runs comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotpatch_portal.stack.embedded import StackError
from hotpatch_portal.stack.portal import Options, generated_password, secret_key, write_private

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.stack
CLEAN = {
    key: value
    for key, value in os.environ.items()
    if key not in {"DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "PORT", "HOST", "DEMO"}
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the machine may walk into, so that nothing is left outside of it."""
    directory = Path(tempfile.mkdtemp(prefix="hp-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


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
        ({"PORT": "http"}, "PORT=http is no port"),
        ({"PORT": "70000"}, "PORT=70000 is no port"),
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
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory.parent / "portal.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "portal"],
                cwd=ROOT,
                env=CLEAN | {"PORTAL_DIR": str(directory), "PORT": str(free_port()), "DEMO": "0"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_for(lambda: (directory / "access.json").exists(), 90)
        self.access = json.loads((directory / "access.json").read_text())

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


def test_it_runs_brings_back_what_dies_and_stops_clean(running: Running) -> None:
    assert stat.S_IMODE((running.directory / "access.json").stat().st_mode) == 0o600
    assert running.access["password"] == "", "without the demo nobody has a password yet"
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
