"""Pictures and videos decoded beside the event loop, by a few threads in which tenants take turns."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from ernie_rt import Caller
from ernie_rt.errors import MediaError
from ernie_rt.text.media import Media
from ernie_rt.text.media_reader import Announce, MediaReader
from ernie_rt.vision.item import Item
from ernie_rt_serve.attachments import Attachment
from ernie_rt_serve.faults import Fault
from ernie_rt_serve.turns import Turns

THREADS: Final = 3
"""So many are decoded at once, which bounds the memory of those that are larger than they look."""
EACH: Final = 2
"""And so many of one tenant's, so that others need not wait for all that somebody asks for."""
KEPT_BYTES: Final = 128 << 20
"""Of pixels, so that a conversation that goes on has none of its pictures decoded again."""


class Decoders:
    def __init__(self, reader: MediaReader | None) -> None:
        """Without a `reader` the model takes in none, and nobody asks for any."""
        self._reader = reader
        self._pool = ThreadPoolExecutor(THREADS, "pictures")
        self._turns = Turns(EACH)
        self._kept: OrderedDict[tuple[object, ...], Item] = OrderedDict()  # what was asked for last comes last
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the threads, once each has what it is at."""
        self._pool.shutdown(cancel_futures=True)

    async def decode(self, given: Attachment, caller: Caller, announce: Announce) -> Item:
        """What the model gets of a file; a Fault that names its place where it cannot be used.

        `announce` is told in a thread how many tokens it has, before it is decoded, and may raise. What is kept is for
        who shares what is cached: how long it takes tells nobody what others have shown.
        """
        async with self._turns.of(caller.tenant):
            find = partial(self._find, given, caller.salt, announce)
            return await asyncio.get_running_loop().run_in_executor(self._pool, find)

    def _find(self, given: Attachment, salt: bytes, announce: Announce) -> Item:
        key = salt, given.kind, given.type, given.max_pixels, given.digest()
        with self._lock:
            item = self._kept.get(key)
            if item is not None:
                self._kept.move_to_end(key)
        if item is not None:
            announce(item.tokens)
            return item
        item = self._decode(given, announce)
        if item.frames.nbytes > KEPT_BYTES:  # all others would have to go
            return item
        with self._lock:
            self._kept[key] = item
            while sum(each.frames.nbytes for each in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return item

    def _decode(self, given: Attachment, announce: Announce) -> Item:
        assert self._reader is not None
        pixels = None if given.max_pixels is None else min(given.max_pixels, self._reader.max_pixels)
        try:
            return self._reader.item(Media(given.kind, given.data(), max_pixels=pixels), announce)
        except MediaError as error:
            error.where = given.where
            raise Fault(400, str(error), given.where) from None
