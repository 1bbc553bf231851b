"""Hypercorn's connections: what one turn of the event loop has to send is sent by one system call.

Stock hypercorn (asyncio/tcp_server.py) sends an answer's head, its body and its end one by one. Each wakes the client,
and in each the emulator lets go of Python's lock, which its other threads may then hold for some milliseconds.
"""

from __future__ import annotations

import contextlib
import sys

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Event, RawData

MOST_BYTES = 65536
"""With more to send than this, a sender waits until the client has read."""
SWITCH_SECONDS = 0.0005
"""How long a thread may hold Python's lock while another one waits for it; 0.005 by default."""
_stock_send = TCPServer.protocol_send


async def _send(self: TCPServer, event: Event) -> None:
    """TCPServer.protocol_send."""
    unsent: bytearray = self.__dict__.setdefault("unsent", bytearray())
    if isinstance(event, RawData):
        if not unsent:
            self.loop.call_soon(_flush, self, unsent)
        unsent += event.data
        if len(unsent) <= MOST_BYTES:
            return
        event = RawData(b"")
    _flush(self, unsent)
    await _stock_send(self, event)


def _flush(connection: TCPServer, unsent: bytearray) -> None:
    content = bytes(unsent)
    unsent.clear()
    if content:
        with contextlib.suppress(ConnectionError, RuntimeError):  # the client has left: reading from it says so
            connection.writer.write(content)


def install() -> None:
    """Hook in."""
    TCPServer.protocol_send = _send
    sys.setswitchinterval(SWITCH_SECONDS)
