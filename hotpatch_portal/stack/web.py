"""`python -m hotpatch_portal.stack.web`: the web processes, which read requests outside the threads that answer them.

One process binds the port and starts the others, which share it; what ends is started again. Each of them is a Waitress:
its main thread collects whole requests and sends answers, its worker threads see a request once all of it has arrived. A
client that drips its head, its body or the reading of its answer costs a file descriptor, never a thread, and only for as
long as the limits below allow (docs/adr/0009-waitress.md has what was measured).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from hotpatch_portal.stack.embedded import die_with_parent

# As many as share the processor with workers and a database on a small machine.
PROCESSES, THREADS = 2, 4
# Cookies, a long filter and every header a browser sends, several times over. A selection of many machines is a body.
HEAD_BYTES = 32 * 1024
# The longest line of the PROXY protocol.
INTRODUCTION_BYTES = 107
# A head is one packet or two.
HEAD_SECONDS = 10
# A body, and the reading of an answer, may take this long, and a second more for every so many bytes that did move: 50 MB
# over a telephone line pass, a byte a second does not.
MOVING_SECONDS, BYTES_PER_SECOND = 20, 10_000
# Longer than the minute for which proxies keep their connections: the one who asks should be the one who closes.
IDLE_SECONDS = 75
# Connections of one process. One more than that, and who has waited longest without a whole request has to go.
CONNECTIONS = 500
# Bodies and answers beyond this stand in temporary files, so that all connections together stay within some 60 MB.
IN_MEMORY_BYTES = 64 * 1024
# Bodies that are not complete yet, of all connections of one process. Beyond, the largest has to go: no disk fills up.
UNFINISHED_BYTES = 1024**3
# How much of an answer may wait for its reader before the thread that writes it waits as well. The rest is a file.
UNREAD_BYTES = 64 * 1024**2
# The supervisor gives 10 seconds. First answers under way get to their end, then whoever is left is killed.
ANSWER_SECONDS, STOP_SECONDS = 8, 9
# A process whose main thread has not come round for so long answers nobody any more.
SILENT_SECONDS = 60
# Who ends younger than this would end again: the supervisor waits longer each time.
YOUNG_SECONDS = 10
CHECK_SECONDS = 1

log = logging.getLogger("hotpatch_portal.web")


# --- requests ----------------------------------------------------------------------------------------------------


class Request(HTTPRequestParser):
    """A request while it arrives. What two servers could read in two ways is refused."""

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head. Raises ParsingError, whatever is wrong with it."""
        try:
            super().parse_header(header_plus)
        except TransferEncodingNotImplemented as error:  # would be answered with 501, as if the fault were ours
            raise ParsingError(*error.args) from None
        except ValueError as error:  # an address such as http://[
            raise ParsingError("Bad URI") from error
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Both Transfer-Encoding and Content-Length")
        if self.version == "1.0" and "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("Transfer-Encoding in HTTP/1.0")


class Answer(WSGITask):
    """An answer of the portal. To HEAD it is the headers alone."""

    def write(self, data: bytes) -> None:
        """Send some of the body, after the headers."""
        if self.request.command == "HEAD":
            super().write(b"")
            self.chunked_response = False
        else:
            super().write(data)


class Refusal(ErrorTask):
    """The answer to what is no request. One line in the log."""

    def execute(self) -> None:
        """Say what is wrong with it."""
        error = self.request.error
        log.warning("%s refused: %d %s", self.channel.addr[0], error.code, printable(error.body))
        super().execute()


def printable(text: str) -> str:
    """What a stranger wrote, in the form a log can show."""
    return text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")[:200]


class Connection(HTTPChannel):
    """A connection, and since when it has been waiting for what."""

    parser_class = Request
    task_class = Answer
    error_task_class = Refusal

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.since = time.monotonic()
        self.introduction: bytes | None = None
        self.unread_since: float | None = None
        self.sent_bytes = self.sent_before = 0
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Take in what has arrived; note when a request begins and ends."""
        if self.server.is_behind_tls and self.introduction is None:
            self.introduction = b""
        if self.introduction is not None and not self.introduction.endswith(b"\r\n"):
            data = self._introduced(data)
        before = self.request
        taken: bool = super().received(data)
        if self.request is not before:
            self.since = time.monotonic()
        return taken

    def _introduced(self, data: bytes) -> bytes:
        """Read the line in which what stands before us says who is connected; what follows it (`stack.tls`)."""
        line, end, rest = ((self.introduction or b"") + data).partition(b"\r\n")
        self.introduction = line + end
        words = line.decode("ascii", "replace").split(" ")
        if end and len(words) == 6 and words[0] == "PROXY":
            self.addr = (words[2], int(words[4]) if words[4].isdigit() else 0)
        elif end or len(line) > INTRODUCTION_BYTES:
            self.cut("not introducing itself")
        return rest

    def service(self) -> None:
        """Answer one request, in a worker thread."""
        super().service()
        self.since = time.monotonic()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Hand bytes to the network; count those that it took."""
        sent: int = super().send(data, do_close)
        self.sent_bytes += sent
        return sent

    @property
    def is_waiting(self) -> bool:
        """Whether the portal owes this client nothing."""
        return not (self.requests or self.total_outbufs_len)

    def overdue(self, now: float) -> str:
        """What the client has taken too long for; empty if it is in time."""
        if self.total_outbufs_len:
            if self.unread_since is None:
                self.unread_since, self.sent_before = now, self.sent_bytes
            moved = self.sent_bytes - self.sent_before
            return "reading the answer" if now - self.unread_since > allowed_seconds(moved) else ""
        self.unread_since = None
        if self.requests:
            return ""
        request = self.request
        if request is None:
            return "the next request" if now - self.since > IDLE_SECONDS else ""
        if not request.headers_finished:
            return "the head" if now - self.since > HEAD_SECONDS else ""
        return "the body" if now - self.since > allowed_seconds(request.body_bytes_received) else ""

    def cut(self, reason: str) -> None:
        """Close it now. One line in the log, unless it was merely kept open."""
        if self.request is not None or self.total_outbufs_len:
            log.warning("%s cut off: %s", self.addr[0], reason)
        self.will_close = True
        self.handle_close()


def allowed_seconds(moved_bytes: int) -> float:
    """How long a transfer may have taken by now."""
    return MOVING_SECONDS + moved_bytes / BYTES_PER_SECOND


# --- one process -------------------------------------------------------------------------------------------------


class Server(TcpWSGIServer):
    """Waitress on a socket that is bound already, with limits of our own on what may stay unfinished."""

    channel_class = Connection

    def __init__(
        self,
        application: Any,
        listening: socket.socket,
        *,
        threads: int,
        body_bytes: int,
        is_behind_tls: bool = False,
    ) -> None:
        self.is_behind_tls = is_behind_tls
        settings = Adjustments(
            threads=threads,
            url_scheme="https" if is_behind_tls else "http",
            ident="",  # what answers is nobody's business
            # Headers of proxies pass unchanged: the settings HTTPS and TRUSTED_PROXIES say which are believed.
            clear_untrusted_proxy_headers=False,
            asyncore_use_poll=True,  # select() ends at descriptor 1,023
            connection_limit=2 * CONNECTIONS,  # ours comes first, and does not stop the others from coming in
            cleanup_interval=CHECK_SECONDS,
            max_request_header_size=HEAD_BYTES,
            max_request_body_size=body_bytes,
            inbuf_overflow=IN_MEMORY_BYTES,
            outbuf_overflow=IN_MEMORY_BYTES,
            outbuf_high_watermark=UNREAD_BYTES,
            log_socket_errors=False,  # a client that has gone is no error of ours
        )
        address = (listening.family, listening.type, listening.proto, listening.getsockname())
        # One file of the largest size may always come in.
        self.unfinished_bytes = max(UNFINISHED_BYTES, body_bytes)
        super().__init__(application, {}, _sock=listening, adj=settings, sockinfo=address, bind_socket=False)

    def connections(self) -> list[Connection]:
        """Those that are open now."""
        return list(self.active_channels.values())

    def handle_accept(self) -> None:
        """Let a client in; if that is one too many, somebody who has not asked anything yet has to go."""
        super().handle_accept()
        if len(self.active_channels) > CONNECTIONS:
            waiting = [one for one in self.connections() if one.is_waiting]
            if waiting:
                min(waiting, key=lambda one: one.since).cut("too many connections")

    def maintenance(self, _now: float) -> None:
        """Cut off who is overdue. Called every CHECK_SECONDS."""
        now = time.monotonic()
        for one in self.connections():
            if reason := one.overdue(now):
                one.cut(f"too slow with {reason}")
        unfinished = {
            one: one.request.body_bytes_received
            for one in self.connections()
            if one.request is not None and one.request.body_bytes_received
        }
        while sum(unfinished.values()) > self.unfinished_bytes:
            largest = max(unfinished, key=lambda one: unfinished[one])
            del unfinished[largest]
            largest.cut("too many unfinished bodies")

    def turn(self) -> None:
        """Wait for the network, at most a second, and do what has come up."""
        wasyncore.loop(timeout=CHECK_SECONDS, use_poll=True, map=self._map, count=1)

    def finish(self) -> None:
        """Let nobody in any more; return when every request that has arrived is answered, or after ANSWER_SECONDS."""
        wasyncore.dispatcher.close(self)  # the socket alone: worker threads still have to wake this one
        ends_at = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < ends_at:
            for one in self.connections():
                if one.is_waiting:
                    one.cut("the portal stops")
            if not self.active_channels:
                return
            self.turn()


def work(listening: socket.socket, *, threads: int, heartbeat: Heartbeat, is_behind_tls: bool = False) -> None:
    """Be one web process until told to stop."""
    is_stopping = False

    def stop_soon(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop_soon)
    from django.conf import settings

    from hotpatch_portal.wsgi import application

    # One line per request that waits for a thread says nothing new.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # A file that is too large for an import gets the form's own sentence, unless it is absurd.
    body_bytes = settings.MAX_IMPORT_BYTES + settings.MAX_IMPORT_BYTES // 4
    server = Server(application, listening, threads=threads, body_bytes=body_bytes, is_behind_tls=is_behind_tls)
    while not is_stopping:
        server.turn()
        heartbeat.beat()
    server.finish()


# --- all processes -----------------------------------------------------------------------------------------------


class Heartbeat:
    """When a process last came round, in memory that it shares with the one that started it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)
        self.beat()

    def beat(self) -> None:
        """Note that it is now."""
        self._memory[:] = struct.pack("d", time.monotonic())

    @property
    def age_seconds(self) -> float:
        """How long ago that was."""
        (last,) = struct.unpack("d", self._memory[:])
        return time.monotonic() - float(last)


class WebProcesses:
    """Starts the web processes on one port, starts again what ends, stops all of them."""

    def __init__(self, listening: socket.socket, *, processes: int, threads: int, is_behind_tls: bool = False) -> None:
        self.listening = listening
        self.is_behind_tls = is_behind_tls
        self.processes = processes
        self.threads = threads
        self.running: dict[int, tuple[float, Heartbeat]] = {}
        self.is_stopping = False

    def run(self) -> int:
        """Keep them running until told to stop; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)
        code = 0
        while not self.is_stopping:
            while len(self.running) < self.processes:
                self._start()
            time.sleep(0.2)
            for pid, (_started_at, heartbeat) in self.running.items():
                if heartbeat.age_seconds > SILENT_SECONDS:
                    say(f"a web process has been silent for {SILENT_SECONDS} s; starting another one")
                    signal_process(pid, signal.SIGKILL)
            for lived, status in self._ended():
                if self.is_stopping:
                    break
                say(f"a web process ended ({words(status)}); starting another one")
                if lived < YOUNG_SECONDS:
                    self.is_stopping, code = True, 1
        self._stop()
        return code

    def _stop_soon(self, _number: int, _frame: FrameType | None) -> None:
        self.is_stopping = True

    def _start(self) -> None:
        heartbeat = Heartbeat()
        # Nothing of Django has been loaded here, and no thread runs: what a fork copies is whole.
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                die_with_parent()
                work(self.listening, threads=self.threads, heartbeat=heartbeat, is_behind_tls=self.is_behind_tls)
                code = 0
            except Exception:
                logging.getLogger("hotpatch_portal.web").exception("the web process cannot work")
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)  # a thread that still answers would keep it alive
        self.running[pid] = (time.monotonic(), heartbeat)

    def _ended(self) -> Iterator[tuple[float, int]]:
        """How long each lived that has ended since the last look, and how it ended."""
        for pid in list(self.running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                started_at, _heartbeat = self.running.pop(pid)
                yield time.monotonic() - started_at, status

    def _stop(self) -> None:
        self.listening.close()
        for pid in self.running:
            signal_process(pid, signal.SIGTERM)
        ends_at = time.monotonic() + STOP_SECONDS
        while self.running and time.monotonic() < ends_at:
            list(self._ended())
            time.sleep(0.05)
        for pid in self.running:
            signal_process(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def words(status: int) -> str:
    """How a process ended."""
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def say(line: str) -> None:
    """One line for whoever watches; the log belongs to the processes that have loaded Django."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 (the terminal is this program's page)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    listening.listen(1024)
    return listening


def _refused() -> int:
    """The exit code where this installation must not serve, 0 where it may; the reason has been said.

    A process of its own looks: what is loaded for it must not be copied into the web processes.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _refuse_what_is_wrong()
            code = 0
        except SystemExit as reason:
            say(str(reason))
        except Exception as error:
            say(f"This installation cannot serve: {type(error).__name__}: {error}")
        finally:
            os._exit(code)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _refuse_what_is_wrong() -> None:
    """End with a sentence for each error of the doctor, and for a database of a newer portal."""
    import django
    from django.core.checks import ERROR, run_checks

    from hotpatch_portal.schema import refuse_newer_database

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")
    django.setup()
    errors = [message for message in run_checks() if message.level >= ERROR]
    if errors:
        raise SystemExit("\n".join(f"{error.msg} {error.hint or ''} ({error.id})" for error in errors))
    refuse_newer_database()


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m hotpatch_portal.stack.web", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--threads", type=int, default=THREADS, help="of each process; they answer requests")
    parser.add_argument("--behind-tls", action="store_true", help="hotpatch_portal.stack.tls stands before it")
    options = parser.parse_args(None if arguments is None else list(arguments))
    # Each connection may stand for a socket and two temporary files.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    if code := _refused():
        return code
    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        say(f"Cannot listen on {options.host}:{options.port} ({error.strerror}).")
        return 1
    return WebProcesses(
        listening, processes=options.processes, threads=options.threads, is_behind_tls=options.behind_tls
    ).run()


if __name__ == "__main__":
    raise SystemExit(main())
