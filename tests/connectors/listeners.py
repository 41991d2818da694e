"""Servers on the loopback that probes are sent to, and ports where nobody listens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

Answer = Callable[[socket.socket], None]


class Server:
    """A server on 127.0.0.1 that answers each connection with a function, and counts them."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.is_stopping = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.05)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while not self.is_stopping.is_set():
            with suppress(TimeoutError):
                client, _address = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(5)
        with client, suppress(OSError):
            self.answer(client)

    def stop(self) -> None:
        self.is_stopping.set()
        self.thread.join(5)
        self.listener.close()


def saying(text: bytes) -> Answer:
    def answer(client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(text)

    return answer


def silent(client: socket.socket) -> None:
    while client.recv(65_536):
        pass


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
