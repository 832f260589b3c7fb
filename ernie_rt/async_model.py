"""A model for many tasks at once: its engine runs in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from ernie_rt.generation.options import GenerateOptions
from ernie_rt.generation.stream import Generation, Piece
from ernie_rt.session import Model
from ernie_rt.text.chat import ChatPrompt
from ernie_rt.text.messages import Message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    A request of a lower `priority` goes first, and among equals tenants take turns. Prompts share what is cached of
    their beginnings within one `salt` alone.
    """

    tenant: str = ""
    priority: int = 0
    salt: bytes = b""


class AsyncModel:
    """Answers many requests at once, in tasks of asyncio; use it in an `async with` block."""

    def __init__(self, model: Model, *, max_queue: int | None = None, queue_seconds: float | None = None) -> None:
        self.model = model

    async def __aenter__(self) -> AsyncModel:
        raise NotImplementedError

    def generate(
        self,
        prompt: str | Iterable[int],
        *,
        caller: Caller = Caller(),
        like: AsyncStream | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        raise NotImplementedError

    def chat(
        self,
        messages: ChatPrompt | Iterable[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        caller: Caller = Caller(),
        like: AsyncStream | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncStream:
        raise NotImplementedError

    async def drain(self, seconds: float | None = None) -> None:
        raise NotImplementedError


class AsyncStream(AsyncIterator[Piece]):
    """The pieces of an answer, as they come."""

    async def __anext__(self) -> Piece:
        raise NotImplementedError

    def take(self) -> list[Piece]:
        """The pieces that are there, without waiting."""
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    @property
    def generation(self) -> Generation:
        raise NotImplementedError
