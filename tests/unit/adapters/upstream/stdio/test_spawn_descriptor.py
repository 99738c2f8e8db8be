"""A pipe's end that a loop takes over is closed once, whoever closes it."""

import asyncio
import os
import tempfile

import pytest
import uvloop

from fulcrum_adapters.upstream.stdio.spawn import Descriptor


def piped(loop: asyncio.AbstractEventLoop) -> tuple[Descriptor, int]:
    ours, theirs = os.pipe()
    return Descriptor(os.fdopen(ours, "rb", 0), loop), theirs


def test_a_number_that_uvloop_closed_and_another_file_got_is_left_alone() -> None:
    loop = uvloop.new_event_loop()
    end, other = piped(loop)
    number = end.fileno()
    os.close(number)  # as libuv does, before the object is told
    with tempfile.TemporaryFile() as file:
        taken = os.dup2(file.fileno(), number)
        end.close()
        os.fstat(taken)
        os.close(taken)
    os.close(other)
    loop.close()


def test_plain_asyncio_leaves_the_closing_to_the_object() -> None:
    loop = asyncio.new_event_loop()
    end, other = piped(loop)
    number = end.fileno()
    end.close()
    end.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    os.close(other)
    loop.close()


@pytest.mark.parametrize("new", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_its_descriptor_is_gone_once_its_transport_is_closed(new: type[asyncio.AbstractEventLoop]) -> None:
    async def through() -> int:
        loop = asyncio.get_running_loop()
        end, other = piped(loop)
        number = end.fileno()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), end)
        os.write(other, b"said")
        os.close(other)
        assert await reader.read() == b"said"
        transport.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return number

    loop = new()
    number = loop.run_until_complete(through())
    loop.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
