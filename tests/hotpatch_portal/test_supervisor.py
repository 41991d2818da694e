"""The supervisor, with real processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotpatch_portal.stack import supervisor as module
from hotpatch_portal.stack.supervisor import Child, Supervisor

pytestmark = pytest.mark.stack
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]
DYING = [sys.executable, "-c", "raise SystemExit(3)"]


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*children: Child, broker_answers: bool = True) -> Supervisor:
        made.append(Supervisor(children, cwd=tmp_path, broker_answers=lambda: broker_answers))
        made[-1].start()
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_killed_child_comes_back(supervise: Callable[..., Supervisor], capfd: pytest.CaptureFixture[str]) -> None:
    child = Child("web", SLEEPER)
    supervisor = supervise(child)
    assert child.process is not None
    first = child.process.pid
    os.kill(first, 9)
    child.process.wait()
    supervisor.check()
    assert not child.is_running, "not before its backoff"
    wait_for(lambda: supervisor.check() or child.is_running)
    assert child.process.pid != first
    time.sleep(0.3)
    printed = capfd.readouterr().out
    assert "portal   | web ended (signal 9); starting it again in 1 s" in printed
    assert "web      | up" in printed


def test_a_child_that_keeps_dying_is_left_longer_each_time(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_BACKOFF_SECONDS", 0.01)
    child = Child("beat", DYING, backoff=0.01)
    supervisor = supervise(child)
    seen = set()
    deadline = time.monotonic() + 10
    while len(seen) < 4 and time.monotonic() < deadline:
        supervisor.check()
        seen.add(child.backoff)
        time.sleep(0.01)
    assert sorted(seen)[:4] == [0.01, 0.02, 0.04, 0.08]


def test_a_silent_worker_is_restarted_only_while_the_broker_answers(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "SILENT_AFTER_SECONDS", 0.2)
    deaf = Child("worker-1", SLEEPER, heartbeat=tmp_path / "deaf")
    supervisor = supervise(deaf, broker_answers=False)
    time.sleep(0.4)
    supervisor.check()
    assert deaf.is_running
    silent = Child("worker-2", SLEEPER, heartbeat=tmp_path / "silent")
    lively = Child("worker-3", SLEEPER, heartbeat=tmp_path / "lively")
    supervisor = supervise(silent, lively)
    time.sleep(0.4)
    (tmp_path / "lively").touch()
    supervisor.check()
    wait_for(lambda: not silent.is_running)
    assert lively.is_running


def test_everything_stops_the_stubborn_too(
    supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.5)
    children = [Child("web", SLEEPER), Child("worker-1", STUBBORN)]
    supervisor = supervise(*children)
    output = ""
    deadline = time.monotonic() + 10
    while output.count("up") < 2 and time.monotonic() < deadline:
        output += capfd.readouterr().out
        time.sleep(0.05)
    pids = [child.process.pid for child in children if child.process]
    supervisor.stop()
    assert [pid for pid in pids if is_alive(pid)] == []
