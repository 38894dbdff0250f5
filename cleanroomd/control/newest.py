"""A stream for readers slower than its source."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def newest(source: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Yields the newest item at each turn; what the reader was too slow for is forgotten, never queued."""
    latest: list[T] = []
    changed = asyncio.Event()

    async def drain() -> None:
        async for item in source:
            latest[:] = [item]
            changed.set()

    pump = asyncio.create_task(drain())
    pump.add_done_callback(lambda _: changed.set())
    try:
        while latest or not pump.done():
            await changed.wait()
            changed.clear()
            if latest:
                yield latest.pop()
        pump.result()
    finally:
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump
