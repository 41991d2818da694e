"""`python -m hotpatch_portal.stack.tls`: TLS before the web processes, for `make up TLS=1`.

It hands on bytes and reads none of them. Where each connection came from it says in one line before the first byte (the
PROXY protocol, version 1): the web processes believe that line, since nothing but this process speaks to them there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import signal
import ssl
from collections.abc import Iterable
from pathlib import Path

# Somewhat more than the web processes keep open: they say who has to go.
CONNECTIONS = 1_200
HANDSHAKE_SECONDS = 10.0
STOP_SECONDS = 9.0
PIECE_BYTES = 64 * 1024


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and newer, with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def introduction(peer: tuple[str, int], own: tuple[str, int]) -> bytes:
    """The line that says who is connected."""
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    family = "TCP6" if address.version == 6 else "TCP4"
    return f"PROXY {family} {address} {own[0].partition('%')[0]} {peer[1]} {own[1]}\r\n".encode()


class Forwarder:
    """Hands connections on to the web processes, as long as there are not too many."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one of its ends closes it."""
        self.open += 1
        try:
            if self.open <= CONNECTIONS:
                await self._forward(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two has gone
        finally:
            self.open -= 1
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            peer, own = (writer.get_extra_info(name)[:2] for name in ("peername", "sockname"))
            inner_writer.write(introduction(peer, own))
            ways = {
                asyncio.create_task(self._copy(reader, inner_writer)),
                asyncio.create_task(self._copy(inner_reader, writer)),
            }
            _done, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in others:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            inner_writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Never more than one piece waits here: who reads slowly slows down who writes."""
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


async def serve(host: str, port: int, *, to: int, context: ssl.SSLContext) -> None:
    """Forward until told to stop; then let what is open get to its end for a while."""
    forwarder = Forwarder(to)
    server = await asyncio.start_server(
        forwarder.accept, host, port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS, backlog=1024
    )
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            while forwarder.open:
                await asyncio.sleep(0.05)


def main(arguments: Iterable[str] | None = None) -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m hotpatch_portal.stack.tls", description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--to", type=int, required=True, help="the port of the web processes on 127.0.0.1")
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    options = parser.parse_args(None if arguments is None else list(arguments))
    context = context_of(options.certificate, options.key)
    asyncio.run(serve(options.host, options.port, to=options.to, context=context))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
