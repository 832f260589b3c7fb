"""One request, asked and measured."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import h11
import msgspec

from ernie_rt_serve.bench.connection import Client, Response
from ernie_rt_serve.bench.record import Record
from ernie_rt_serve.structs import decode

LONGEST_EVENT: Final = 1 << 20
LONGEST_ERROR: Final = 2000
"""Bytes of a refusal that are kept."""


class CachedTokens(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: CachedTokens | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    @property
    def bears_tokens(self) -> bool:
        """A first event often names the role alone, a last one the reason alone."""
        d = self.delta
        return bool(self.text or (d and (d.content or d.reasoning_content or d.reasoning or d.refusal or d.tool_calls)))


class Event(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class Asker:
    """Sends bodies to one path of a server; times are in seconds since `begin` (`time.perf_counter`)."""

    def __init__(self, client: Client, path: str, timeout: float) -> None:
        self.begin = time.perf_counter()
        self.server: str | None = None
        """What the server calls itself."""
        self._client = client
        self._path = path
        self._timeout = timeout

    def now(self) -> float:
        return time.perf_counter() - self.begin

    async def ask(self, body: bytes, scheduled: float | None = None) -> Record:
        """What came of a request: an error is part of the record and raises nothing."""
        record = Record(sent=self.now(), scheduled=scheduled, arrivals=[])
        try:
            async with asyncio.timeout(self._timeout), self._client.request("POST", self._path, body) as response:
                record.status = str(response.status)
                self.server = response.headers.get("server", self.server)
                if response.status != 200:
                    record.error = (await response.read(LONGEST_ERROR)).decode("utf-8", "replace")
                elif not response.headers.get("content-type", "").startswith("text/event-stream"):
                    record.error = f"no event stream, but {response.headers.get('content-type', 'an unnamed type')}"
                else:
                    await self._follow(response, record)
        except TimeoutError:
            record.status = "timeout"
            record.error = f"no end within {self._timeout:g} s"
        except (OSError, h11.RemoteProtocolError) as error:
            record.status = "cut" if record.status else "unreachable"
            record.error = str(error) or type(error).__name__
        except msgspec.MsgspecError as error:
            record.status = "malformed"
            record.error = f"an event that is none of OpenAI's: {error}"
        record.ended = self.now()
        return record

    async def _follow(self, response: Response, record: Record) -> None:
        """Note when tokens arrive, until the stream ends."""
        rest = b""
        ended = False
        while (piece := await response.piece())[0]:
            data, at = piece
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > LONGEST_EVENT:
                raise msgspec.DecodeError(f"it is longer than {LONGEST_EVENT} bytes")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                if (text := line[5:].strip()) == b"[DONE]":
                    ended = True
                    continue
                event = decode(text, Event)
                if event.error is not None:
                    record.status = "error in the stream"
                    record.error = str(event.error)[:LONGEST_ERROR]
                    return
                for choice in event.choices or ():
                    record.finish = choice.finish_reason or record.finish
                    if choice.bears_tokens:
                        record.arrivals.append(at - self.begin)
                if event.usage is not None:
                    _count(event.usage, record)
        if not ended and record.finish is None:
            record.status = "cut"
            record.error = "the stream ended before the answer did"


def _count(usage: Usage, record: Record) -> None:
    """Take the server's counts; some send them with every event, and the last ones hold."""
    record.prompt_tokens = usage.prompt_tokens
    record.output_tokens = usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        record.cached_tokens = usage.prompt_tokens_details.cached_tokens
