"""AWS event streams (`application/vnd.amazon.eventstream`), encoded as botocore decodes them."""

import json
import struct
from binascii import crc32
from collections.abc import Mapping
from typing import Any


def encode_event(name: str, payload: bytes, *, content_type: str = "application/json") -> bytes:
    """An event's message."""
    return _message({":message-type": "event", ":event-type": name, ":content-type": content_type}, payload)


def encode_exception(name: str, payload: Mapping[str, Any]) -> bytes:
    """The message of a modelled exception, which ends a stream."""
    headers = {":message-type": "exception", ":exception-type": name, ":content-type": "application/json"}
    return _message(headers, json.dumps(payload).encode())


def _message(headers: Mapping[str, str], payload: bytes) -> bytes:
    header_bytes = b"".join(map(_header, headers, headers.values()))
    prelude = struct.pack("!II", len(header_bytes) + len(payload) + 16, len(header_bytes))
    message = prelude + struct.pack("!I", crc32(prelude)) + header_bytes + payload
    return message + struct.pack("!I", crc32(message))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(text)) + text
