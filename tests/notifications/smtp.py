"""A mail server on loopback that does as a test says: takes mail, fails, hangs, or takes it and does not say so."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from enum import Enum
from typing import Any


class Mood(Enum):
    """What the server does with who comes."""

    TAKES = "takes"
    BUSY = "busy"  # 451 to every mail
    REFUSES = "refuses"  # 550 to every address
    HANGS_UP = "hangs_up"  # closes the connection after the mail, without an answer
    SILENT = "silent"  # greets nobody
    TAKES_SILENTLY = "takes_silently"  # keeps the mail, and never says so


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as it takes. `taken` are the mails that it keeps, in the order in which they came."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.mood = Mood.TAKES
        self.taken: list[EmailMessage] = []
        self.sessions = 0
        self.has_come = threading.Event()
        self.may_go = threading.Event()  # what hangs hangs until then

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def ids(self) -> list[str]:
        """The Message-ID of each mail that it keeps."""
        return [str(mail["Message-ID"]) for mail in self.taken]


class _Session(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.server.sessions += 1
        try:
            self._talk()
        except (ConnectionError, BrokenPipeError):
            return  # who was killed says nothing more

    def _talk(self) -> None:
        if self.server.mood is Mood.SILENT:
            self._hang()
            return
        self._say("220 test")
        while line := self.rfile.readline():
            word = line.split(b" ")[0].strip().upper()
            if word == b"QUIT":
                self._say("221 bye")
                return
            if word == b"DATA":
                self._say("354 go on")
                if not self._take():
                    return
            elif word == b"RCPT" and self.server.mood is Mood.REFUSES:
                self._say("550 5.1.1 no such mailbox")
            elif word in {b"EHLO", b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP"}:
                self._say("250 ok")
            else:
                self._say("502 not here")

    def _take(self) -> bool:
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line[1:] if line.startswith(b"..") else line)
        mood = self.server.mood
        if mood is Mood.BUSY:
            self._say("451 4.3.0 try again")
            return True
        mail: Any = message_from_bytes(b"".join(lines), policy=policy.default)
        if mood is not Mood.HANGS_UP:
            self.server.taken.append(mail)
        self.server.has_come.set()
        if mood is Mood.HANGS_UP:
            return False
        if mood is Mood.TAKES_SILENTLY:
            self._hang()
            return False
        self._say("250 2.0.0 kept")
        return True

    def _hang(self) -> None:
        self.server.has_come.set()
        self.server.may_go.wait(60)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """A server that listens until the end of the block."""
    with MailServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.may_go.set()
            server.shutdown()
            thread.join()
