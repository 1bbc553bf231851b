"""Server-sent events, as the HTML standard has them, from bytes that arrive cut anywhere."""

from collections.abc import Iterable, Iterator

from rlaas.chat import BackendFailed

MAX_LINE_BYTES = 4 * 1024 * 1024


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each event's data, in UTF-8 as it came.

    Lines end with CRLF, LF or CR; comments, names, ids and events without data are passed over; an event that the end
    of the stream cuts short of its blank line counts (whoever reads its data sees whether it is whole). Raises:
    BackendFailed on an endless line.
    """
    data: list[bytes] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
    if data:
        yield b"\n".join(data)


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    first = True
    for chunk in chunks:
        lines = (held + chunk).splitlines(keepends=True)
        # A line without its end goes on in the next chunk, and so may a CR at the end: it may be half of a CRLF.
        held = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(held) > MAX_LINE_BYTES:
            raise BackendFailed("the model's stream has a line without end")
        for line in lines:
            yield line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if first else line.rstrip(b"\r\n")
            first = False
    if held:
        yield held.rstrip(b"\r\n")
