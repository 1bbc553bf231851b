"""Sees what an application reads of a stream or of a raw response, and when it is done with it. Everything reaches the
application as it would without."""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Part = TypeVar("Part")


@dataclass(frozen=True)
class Follower(Generic[Part]):
    """Gets what the application reads; none of its functions raises."""

    add: Callable[[Part], bool]
    """Takes the next part; True where the application is not to see it."""
    finish: Callable[[BaseException | None], None]
    """Nothing follows; the error is what the application saw instead. Later calls change nothing."""
    finish_later: Callable[[], None]
    """As `finish`, called by the garbage collector: takes no lock."""


def follow_stream(stream: Any, follower: Follower[Any]) -> None:
    """Follow the chunks of a `Stream` or `AsyncStream`, until its end or until its response is closed."""
    _follow_disposal(stream, follower)
    if hasattr(stream, "__aiter__"):
        async_chunks = _pass_on_async(stream._iterator, follower)
        stream._iterator = async_chunks
        _follow_aclose(stream.response, follower, lambda: [async_chunks])
    else:
        chunks = _pass_on(stream._iterator, follower)
        stream._iterator = chunks
        _follow_close(stream.response, follower, lambda: [chunks])


def follow_body(response: Any, follower: Follower[bytes], *, is_async: bool) -> None:
    """Follow the bytes of a response of httpx that nobody has read yet; all of its ways to read call one method."""
    _follow_disposal(response, follower)
    if is_async:
        aiter_bytes, async_passes = response.aiter_bytes, list[AsyncGenerator[bytes, None]]()

        def aiter_bytes_and_follow(*args: Any, **options: Any) -> AsyncGenerator[bytes, None]:
            async_passes.append(_pass_on_async(aiter_bytes(*args, **options), follower))
            return async_passes[-1]

        response.aiter_bytes = aiter_bytes_and_follow
        _follow_aclose(response, follower, lambda: async_passes)
    else:
        iter_bytes, passes = response.iter_bytes, list[Generator[bytes, None, None]]()

        def iter_bytes_and_follow(*args: Any, **options: Any) -> Generator[bytes, None, None]:
            passes.append(_pass_on(iter_bytes(*args, **options), follower))
            return passes[-1]

        response.iter_bytes = iter_bytes_and_follow
        _follow_close(response, follower, lambda: passes)


def _follow_disposal(answer: object, follower: Follower[Any]) -> None:
    """Finish when nobody holds `answer` any more: what was never read is never closed either."""
    weakref.finalize(answer, follower.finish_later).atexit = False


def _pass_on(parts: Iterator[Part], follower: Follower[Part]) -> Generator[Part, None, None]:
    try:
        for part in parts:
            if not follower.add(part):
                yield part
    except GeneratorExit:
        follower.finish_later()
        raise
    except BaseException as error:
        follower.finish(error)
        raise
    follower.finish(None)


async def _pass_on_async(parts: AsyncIterator[Part], follower: Follower[Part]) -> AsyncGenerator[Part, None]:
    try:
        async for part in parts:
            if not follower.add(part):
                yield part
    except GeneratorExit:
        follower.finish_later()
        raise
    except BaseException as error:
        follower.finish(error)
        raise
    follower.finish(None)


def _follow_close(response: Any, follower: Follower[Any], get_passes: Callable[[], Sequence[Any]]) -> None:
    """Finish when the application closes the response. httpx also closes it itself, while a pass reads the last part;
    that pass then finishes."""
    close: Callable[[], None] = response.close

    def close_and_finish() -> None:
        try:
            close()
        finally:
            with contextlib.suppress(Exception):
                if not any(chunks.gi_running for chunks in get_passes()):
                    _finish(follower)
                    for chunks in get_passes():
                        chunks.close()

    response.close = close_and_finish


def _follow_aclose(response: Any, follower: Follower[Any], get_passes: Callable[[], Sequence[Any]]) -> None:
    aclose: Callable[[], Awaitable[None]] = response.aclose

    async def aclose_and_finish() -> None:
        try:
            await aclose()
        finally:
            with contextlib.suppress(Exception):
                if not any(chunks.ag_running for chunks in get_passes()):
                    _finish(follower)
                    for chunks in get_passes():
                        await chunks.aclose()

    response.aclose = aclose_and_finish


def _finish(follower: Follower[Any]) -> None:
    """Finish at once, unless a generator that nobody holds any more closes the response: that is the garbage
    collector."""
    if isinstance(sys.exc_info()[1], GeneratorExit):
        follower.finish_later()
    else:
        follower.finish(None)
