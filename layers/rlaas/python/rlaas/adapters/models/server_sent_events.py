"""Server-sent events, as the HTML standard defines them, from bytes that arrive in chunks of any size."""

from collections.abc import Iterable, Iterator

from rlaas.chat import BackendFailed

MAX_LINE_BYTES = 4 * 1024 * 1024


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Each event's data, in UTF-8 as it came.

    Lines end with CRLF, LF or CR. Comments, names, ids and events without data are skipped. A last event without its
    blank line counts; its reader sees whether its data is whole. Raises: BackendFailed on a line of over
    `MAX_LINE_BYTES`.
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
    rest = b""
    first = True
    for chunk in chunks:
        lines = (rest + chunk).splitlines(keepends=True)
        # A line without its end continues in the next chunk, and so may a CR at the end, as half of a CRLF.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        if len(rest) > MAX_LINE_BYTES:
            raise BackendFailed("the model's stream has a line without end")
        for line in lines:
            yield line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if first else line.rstrip(b"\r\n")
            first = False
    if rest:
        yield rest.rstrip(b"\r\n")
