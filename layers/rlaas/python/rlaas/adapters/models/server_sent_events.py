"""Server-sent events, as the HTML standard defines them, from bytes that arrive in chunks of any size."""

from collections.abc import Iterable, Iterator

from rlaas.chat import BackendFailed

MAX_LINE_BYTES = 4 * 1024 * 1024


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each event's data, in UTF-8 as it came.

    Lines end with CRLF, LF or CR. Comments, names, ids and events without data are skipped. A last event without its
    blank line counts; its reader sees whether its data is whole. So does each JSON object where no blank line parts
    them. A server that was asked for a stream and answers with
    a JSON object, such as an error, has answered with one event. Takes time linear in the bytes, however they are cut.
    Raises: BackendFailed on a line of over `MAX_LINE_BYTES`.
    """
    data: list[bytes] = []
    lines = _lines(chunks)
    for line in lines:
        if not data and line.lstrip().startswith(b"{"):
            data = [line, *lines]
            break
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.removeprefix(b" ")
            if data and data[-1].endswith(b"}") and value.startswith((b"{", b"[DONE]")):  # nothing in JSON goes on so
                yield b"\n".join(data)
                data = []
            data.append(value)
    if data:
        yield b"\n".join(data)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    size = 0
    first = True
    for chunk in chunks:
        may_end = b"\n" in chunk or b"\r" in chunk or (rest and rest[-1].endswith(b"\r"))
        lines = b"".join((*rest, chunk)).splitlines(keepends=True) if may_end else []
        if may_end:
            # A line without its end continues in the next chunk, and so may a CR at the end, as half of a CRLF.
            rest = [lines.pop()] if lines and not lines[-1].endswith(b"\n") else []
            size = len(rest[0]) if rest else 0
        elif chunk:
            rest.append(chunk)
            size += len(chunk)
        if size > MAX_LINE_BYTES:
            raise BackendFailed("the model's stream has a line without end")
        for line in lines:
            yield line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if first else line.rstrip(b"\r\n")
            first = False
    if rest:
        yield b"".join(rest).rstrip(b"\r\n")
