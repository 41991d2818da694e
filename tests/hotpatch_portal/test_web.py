"""The web processes: who drips holds up nobody, who is too slow is cut off, what can be read in two ways is refused."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotpatch_portal.stack import web
from hotpatch_portal.stack.embedded import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
HEAD = b"GET /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Drip: "
# With the cookie, the portal reads the form for its token.
FORM = (
    b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: csrftoken=abcdefghijklmnopqrstuvwxyzABCDEF\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\n"
)
APPLICATION = """
import time
def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(2)
    body = environ["wsgi.input"].read() if path == "/echo" else b"x" * (30_000_000 if path == "/large" else 5)
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-From", environ.get("HTTP_X_FORWARDED_FOR", ""))])
    return [body]
"""


class Web:
    """Running web processes."""

    def __init__(self, program: list[str], environment: dict[str, str], log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--port", str(self.port)],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            return self.get("/accounts/login/")[0] == 200
        except OSError:
            return False

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            client.request(method, path, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            client.sendall(data)
            found = b""
            while chunk := client.recv(65536):
                found += chunk
            return found

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(15)


Start = Callable[..., Web]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start web processes: those of the portal, or with an application of the test and other limits."""
    started: list[Web] = []

    def start(*, limits: str = "", application: str = "") -> Web:
        program, environment = ["-m", "hotpatch_portal.stack.web"], {"ALLOWED_HOSTS": "127.0.0.1"}
        if limits or application:
            text = "import sys, types\nfrom hotpatch_portal.stack import web\n"
            for assignment in limits.split():
                text += f"web.{assignment}\n"
            if application:
                text += f"module = types.ModuleType('hotpatch_portal.wsgi')\nexec({application!r}, module.__dict__)\n"
                text += "sys.modules['hotpatch_portal.wsgi'] = module\n"
            (tmp_path / "start.py").write_text(f"{text}raise SystemExit(web.main())\n")
            program = [str(tmp_path / "start.py")]
            environment["PYTHONPATH"] = str(ROOT)
        environment["DJANGO_SETTINGS_MODULE"] = "tests.settings"
        started.append(Web(program, environment, tmp_path / f"web-{len(started)}.log"))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


class Dripping(threading.Thread):
    """A client that sends a byte at a time until it is cut off."""

    def __init__(self, port: int, beginning: bytes, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.stop = stop
        self.client = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.client.sendall(beginning)
        self.began = time.monotonic()
        self.lived: float | None = None

    def run(self) -> None:
        try:
            while not self.stop.wait(0.4):
                self.client.sendall(b"a")
        except OSError:
            self.lived = time.monotonic() - self.began
        self.client.close()


@pytest.mark.stack
@pytest.mark.django_db(transaction=True)
def test_a_hundred_dripping_clients_hold_up_nobody_and_are_cut_off(start: Start) -> None:
    portal = start(limits="HEAD_SECONDS=3 MOVING_SECONDS=5")
    stop = threading.Event()
    clients = [Dripping(portal.port, FORM if number % 2 else HEAD, stop) for number in range(100)]
    for client in clients:
        client.start()
    took = []
    ends_at = time.monotonic() + 8
    while time.monotonic() < ends_at:
        began = time.perf_counter()
        assert portal.get("/accounts/login/")[0] == 200
        took.append(time.perf_counter() - began)
        time.sleep(0.05)
    stop.set()
    took.sort()
    assert len(took) >= 20
    assert took[int(len(took) * 0.95)] < 1
    heads, bodies = ([client.lived for client in clients[first::2]] for first in (0, 1))
    assert all(lived is not None and 3 <= lived < 7 for lived in heads), heads
    assert all(lived is not None and 5 <= lived < 9 for lived in bodies), bodies
    said = portal.log.read_text()
    assert len(re.findall("cut off: too slow with the head", said)) == 50
    assert len(re.findall("cut off: too slow with the body", said)) == 50


@pytest.mark.stack
def test_what_two_servers_could_read_in_two_ways_is_refused(start: Start) -> None:
    portal = start(application=APPLICATION)
    for head in (
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nabcde",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nabcde",
        "GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\nb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain; charset=\0\r\n\r\n",
        "\x16\x03\x01\x02\x00\r\n\r\n",
    ):
        assert re.match(rb"HTTP/1.[01] 400 Bad Request\r\n", portal.raw(head.encode("latin-1"))), head
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".ljust(web.HEAD_BYTES, b"a")
    assert re.match(rb"HTTP/1.[01] 431 ", portal.raw(long))
    large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n"
    assert re.match(rb"HTTP/1.[01] 413 ", portal.raw(large))
    assert "127.0.0.1 refused: 400 Both Transfer-Encoding and Content-Length" in portal.log.read_text()
    assert "Traceback" not in portal.log.read_text()


@pytest.mark.stack
def test_answers_are_those_of_the_portal(start: Start) -> None:
    portal = start(application=APPLICATION)
    client = http.client.HTTPConnection("127.0.0.1", portal.port, timeout=20)
    for _ in range(3):  # over one connection: nothing of HEAD's body is left in it
        client.request("HEAD", "/", headers={"X-Forwarded-For": "192.0.2.1"})
        answer = client.getresponse()
        assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "5")
        assert answer.headers["X-From"] == "192.0.2.1"
        assert answer.headers["Date"]
        assert answer.headers["Server"] is None
    body = os.urandom(50_000_000)
    client.request("POST", "/echo", body)
    assert client.getresponse().read() == body
    client.request(
        "POST", "/echo", iter([b"abc", b"def"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
    )
    assert client.getresponse().read() == b"abcdef"
    expecting = portal.raw(
        b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert expecting.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    client.close()


@pytest.mark.stack
def test_a_full_house_lets_the_next_one_in_and_who_reads_nothing_is_cut_off(start: Start) -> None:
    portal = start(application=APPLICATION, limits="CONNECTIONS=10 MOVING_SECONDS=1")
    idle = [socket.create_connection(("127.0.0.1", portal.port), timeout=5) for _ in range(60)]
    assert portal.get("/")[0] == 200
    reader = socket.create_connection(("127.0.0.1", portal.port), timeout=5)
    reader.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    deadline = time.monotonic() + 10
    while "too slow with reading the answer" not in portal.log.read_text():
        assert time.monotonic() < deadline, portal.log.read_text()
        time.sleep(0.1)
    for client in (*idle, reader):
        client.close()


@pytest.mark.stack
def test_a_process_that_dies_is_replaced_and_answers_under_way_arrive_when_all_stop(start: Start) -> None:
    portal = start(application=APPLICATION, limits="YOUNG_SECONDS=0")
    (victim, survivor) = portal.workers()
    os.kill(victim, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while len(portal.workers() - {victim}) < 2:
        assert time.monotonic() < deadline, portal.log.read_text()
        time.sleep(0.05)
    assert survivor in portal.workers()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(portal.get("/slow")[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    dripping = socket.create_connection(("127.0.0.1", portal.port), timeout=5)
    dripping.sendall(HEAD)
    began = time.monotonic()
    assert portal.stop() == 0
    assert time.monotonic() - began < web.STOP_SECONDS
    for thread in threads:
        thread.join()
    assert found == [200] * 4
    dripping.close()


@pytest.mark.stack
def test_an_installation_that_cannot_serve_says_why_and_ends(tmp_path: Path) -> None:
    """The supervisor waits longer each time; the web server itself does not try again."""
    done = subprocess.run(
        [sys.executable, "-m", "hotpatch_portal.stack.web", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "nothing.here"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "This installation cannot serve: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert web.main(["--port", str(port)]) == 1
