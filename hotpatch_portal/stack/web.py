"""The web server: waitress, which reads requests outside of its worker threads, in several processes, with time-outs.

A thread gets a request once its head and body are here, and gives its answer to the loop that sends it. So clients
that send or read slowly cost a connection each, and never a thread. What waitress does not know is how long a request
may take to arrive: `maintenance` ends those that take too long (docs/adr/0009).
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

from hotpatch_portal.stack.embedded import die_with_parent

# A head has this long to arrive; a body so long and what its bytes take at the slowest rate; who says nothing, so long.
HEAD_SECONDS = 15.0
BODY_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 8_000
IDLE_SECONDS = 75.0
MAX_HEAD_BYTES = 32 * 1024
MAX_CONNECTIONS = 800  # of one process; each may take a file of its own for a large body, and 1,024 are usual
# An answer may wait so far for a slow reader before it holds up its thread; beyond 1 MB it waits on the disk.
MAX_UNSENT_BYTES = 512 * 1024 * 1024
GRACE_SECONDS = 8.0
RESTART_SECONDS = 1.0


class TimedChannel(HTTPChannel):  # type: ignore[misc]  # waitress ships no types
    """A connection that knows since when its request is arriving, and how much of it is here."""

    began = 0.0
    arrived = 0

    def received(self, data: bytes) -> bool:
        """Take what came; the first byte of a request starts its clock."""
        if self.request is None:
            self.began, self.arrived = time.time(), 0
        self.arrived += len(data)
        return bool(super().received(data))

    def is_too_late(self, now: float) -> bool:
        """Whether its request should have been here by now, or it has been silent for too long."""
        if self.requests:
            return False
        if self.request is None:
            return bool(now - self.last_activity > IDLE_SECONDS)
        if not self.request.headers_finished:
            return now - self.began > HEAD_SECONDS
        return now - self.began > BODY_SECONDS + self.arrived / SLOWEST_BYTES_PER_SECOND


class Server(TcpWSGIServer):  # type: ignore[misc]  # waitress ships no types
    """A waitress that ends connections whose request does not arrive."""

    channel_class = TimedChannel

    def maintenance(self, now: float) -> None:
        """End what is too late; with most connections taken, those that have been sending their request the longest."""
        channels = list(self.active_channels.values())
        for channel in channels:
            if channel.is_too_late(now):
                channel.will_close = True
        if len(channels) > MAX_CONNECTIONS * 0.9:
            unfinished = [channel for channel in channels if not channel.requests and channel.request is not None]
            for channel in sorted(unfinished, key=lambda channel: channel.began)[: MAX_CONNECTIONS // 10]:
                channel.will_close = True

    def is_busy(self) -> bool:
        """Whether a request is being answered, or an answer is being sent."""
        return any(channel.requests or channel.total_outbufs_len for channel in list(self.active_channels.values()))


def serve(listener: socket.socket, *, threads: int) -> None:
    """Answer requests in this process until SIGTERM; then finish those that are here, 8 seconds at the most."""
    from django.conf import settings

    from hotpatch_portal.wsgi import application

    adjustments = Adjustments(
        sockets=[listener],
        threads=threads,
        ident="",
        connection_limit=MAX_CONNECTIONS,
        cleanup_interval=1,
        asyncore_use_poll=True,
        max_request_header_size=MAX_HEAD_BYTES,
        max_request_body_size=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
        outbuf_high_watermark=MAX_UNSENT_BYTES,
        log_socket_errors=False,
        # Which headers of a proxy count is said by HTTPS and TRUSTED_PROXIES, and judged by Django.
        clear_untrusted_proxy_headers=False,
    )
    open_files: dict[int, Any] = {}
    server = Server(
        application,
        open_files,
        _sock=listener,
        adj=adjustments,
        sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        bind_socket=False,
    )
    ends_at = 0.0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal ends_at
        ends_at = ends_at or time.monotonic() + GRACE_SECONDS
        server.accepting = False
        server.pull_trigger()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not ends_at or (server.is_busy() and time.monotonic() < ends_at):
        server.asyncore.loop(timeout=1 if not ends_at else 0.1, map=open_files, use_poll=True, count=1)
    os._exit(0)  # threads that answer nobody any more hold nothing that counts


def listen(host: str, port: int) -> socket.socket:
    """A socket that all processes accept from."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def run(listener: socket.socket, *, processes: int, answer: Callable[[socket.socket], None]) -> None:
    """Keep so many processes answering, each of which dies with this one; until SIGTERM or SIGINT."""
    children: set[int] = set()
    is_stopping = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while children or not is_stopping:
        while len(children) < processes and not is_stopping:
            pid = os.fork()
            if pid == 0:
                die_with_parent()
                answer(listener)
                os._exit(0)
            children.add(pid)
        pid, status = os.wait()
        children.discard(pid)
        if not is_stopping:
            sys.stderr.write(f"a web process ended ({os.waitstatus_to_exitcode(status)}); starting another\n")
            time.sleep(RESTART_SECONDS)


def refuse_what_is_wrong() -> None:
    """End with a sentence for each error of the doctor, and for a database of a newer portal."""
    import django
    from django.core.checks import ERROR, run_checks
    from django.db import connection

    from hotpatch_portal.schema import refuse_newer_database

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotpatch_portal.settings")
    django.setup()
    errors = [message for message in run_checks() if message.level >= ERROR]
    if errors:
        raise SystemExit("\n".join(f"{error.msg} {error.hint or ''} ({error.id})" for error in errors))
    refuse_newer_database()
    # No process that is forked may share a connection.
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # the stubs know no pool


def main() -> None:
    """Listen and answer."""
    parser = argparse.ArgumentParser(prog="python -m hotpatch_portal.stack.web", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4, help="of each process")
    options = parser.parse_args()
    refuse_what_is_wrong()
    run(
        listen(options.host, options.port),
        processes=options.processes,
        answer=lambda listener: serve(listener, threads=options.threads),
    )


if __name__ == "__main__":
    main()
