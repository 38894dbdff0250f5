"""Slow readers get the newest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from cleanroomd.control.newest import newest


async def test_what_a_reader_was_too_slow_for_is_forgotten() -> None:
    items: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncIterator[int]:
        while True:
            yield await items.get()
            items.task_done()

    async with aclosing(newest(source())) as stream:
        items.put_nowait(1)
        assert await anext(stream) == 1
        for item in range(2, 1000):
            items.put_nowait(item)
        await items.join()
        assert await anext(stream) == 999


async def test_the_last_item_is_not_lost_when_the_source_ends() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [item async for item in newest(source())] == [2]


async def test_an_empty_source_ends_the_stream() -> None:
    never = False

    async def source() -> AsyncIterator[int]:
        if never:
            yield 1

    assert [item async for item in newest(source())] == []


async def test_a_failing_source_fails_the_stream() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        async for _ in newest(source()):
            pass


async def test_closing_the_stream_unwinds_the_source() -> None:
    unwound = asyncio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            unwound.set()

    async with aclosing(newest(source())) as stream:
        await anext(stream)
    assert unwound.is_set()
