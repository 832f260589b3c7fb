"""Many requests at once, in the tasks of an event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ernie_rt
from ernie_rt import AsyncModel, AsyncStream, Caller, Model
from ernie_rt.errors import BackendError, OptionError, OverloadError, PromptError
from ernie_rt.sampling.phases import Anything
from support.held_up import free, held_up, until

SEQUENCES = 4


@pytest.fixture(scope="module", params=["eager", "onnx"])
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with ernie_rt.load("demo", backend=request.param, max_sequences=SEQUENCES, max_context=256, threads=1) as loaded:
        yield loaded


def ask(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"How many grams are in {number} kilograms?"}]


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


async def text(stream: AsyncStream) -> str:
    return "".join([piece.text async for piece in stream])


def test_answers_are_those_of_the_model_alone(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            streams = [served.chat(ask(number)) for number in range(9)]
            streams += [served.generate("1 km = ", max_new_tokens=9, seed=3, temperature=0.7)]
            before = served.stats()
            texts = await asyncio.gather(*map(text, streams))
            after = served.stats()
            assert (after.batched - before.batched) / (after.steps - before.steps) > 2 and free(model)
            alone = [model.chat(ask(number)) for number in range(9)]
            alone += [model.generate("1 km = ", max_new_tokens=9, seed=3, temperature=0.7)]
            assert texts == [answer.text for answer in alone]
            for stream, answer in zip(streams, alone, strict=True):
                assert (stream.generation.ids, stream.generation.finish) == (answer.ids, answer.finish)

    run(body)


def test_the_model_may_be_used_beside_it(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            streams = [served.chat(ask(number)) for number in range(8)]
            beside = await asyncio.to_thread(model.chat, ask(5))
            texts = await asyncio.gather(*map(text, streams))
            assert texts[5] == beside.text == "5 kilograms = 5000 grams"

    run(body)


def test_n_answers_share_their_prompt(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            salted = Caller(salt=b"alone")
            first = served.chat(ask(77), caller=salted, temperature=1.0, seed=1)
            others = [
                served.chat(ask(77), caller=salted, like=first, temperature=1.0, seed=seed) for seed in range(2, 5)
            ]
            await asyncio.gather(*map(text, [first, *others]))
            assert first.generation.cached_tokens == 0
            assert {other.generation.cached_tokens for other in others} == {first.generation.prompt_tokens - 1}

    run(body)


def test_prompts_share_nothing_across_salts(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            cached = []
            for salt in (b"one", b"one", b"two", b""):
                stream = served.chat(ask(123), caller=Caller(salt=salt))
                await text(stream)
                cached.append(stream.generation.cached_tokens)
            assert cached[0] == cached[2] == 0 < cached[1]

    run(body)


def test_leaving_a_stream_ends_it(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            async with served.generate("1", max_new_tokens=200, ignore_eos=True) as stream:
                async for _ in stream:
                    break
            await until(lambda: free(model))
            assert [piece.finish async for piece in stream][-1] == "cancelled"
            assert stream.generation.finish == "cancelled" and 0 < len(stream.generation.ids) < 200

    run(body)


def test_a_stream_that_is_dropped_is_ended(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            served.generate("1", max_new_tokens=200, ignore_eos=True)
            stream = served.generate("2", max_new_tokens=200, ignore_eos=True)
            await anext(stream)
            del stream
            gc.collect()
            await until(lambda: free(model) and not served._streams)

    run(body)


def test_a_queue_is_bounded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch, max_queue=3) as (served, gate):
            streams: list[AsyncStream] = []
            refused: list[OverloadError] = []
            for number in range(20):
                try:
                    streams.append(served.chat(ask(number)))
                except OverloadError as error:
                    refused.append(error)
            assert (len(streams), len(refused)) == (SEQUENCES + 3, 13)
            assert {(error.reason, error.retry_after >= 1) for error in refused} == {("full", True)}
            gate.open.set()
            assert await text(streams[-1]) == "6 kilograms = 6000 grams"
            await asyncio.gather(*map(text, streams))
            assert await text(served.chat(ask(7))) == "7 kilograms = 7000 grams", "there is room again"

    run(body)


def test_nobody_waits_for_longer_than_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch, queue_seconds=0.15) as (served, gate):
            streams = [served.chat(ask(number)) for number in range(SEQUENCES + 2)]
            gate.once.release()
            await until(lambda: served.stats().running == SEQUENCES)
            for stream in streams[SEQUENCES:]:
                with pytest.raises(OverloadError, match=r"waited 0\.15 s") as caught:
                    await text(stream)
                assert caught.value.reason == "expired" and not stream.generation.ids
            gate.open.set()
            texts = await asyncio.gather(*map(text, streams[:SEQUENCES]))
            assert texts == [f"{number} kilograms = {number}000 grams" for number in range(SEQUENCES)]
            await until(lambda: free(model))

    run(body)


def test_draining(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            streams = [served.chat(ask(number)) for number in range(SEQUENCES + 2)]
            gate.once.release()
            await until(lambda: served.stats().running == SEQUENCES)
            drained = asyncio.ensure_future(served.drain())
            for stream in streams[SEQUENCES:]:
                with pytest.raises(OverloadError) as caught:
                    await text(stream)
                assert caught.value.reason == "draining"
            with pytest.raises(OverloadError, match="serving has come to its end"):
                served.chat(ask(1))
            assert not drained.done()
            gate.open.set()
            await drained
            texts = [await text(stream) for stream in streams[:SEQUENCES]]
            assert texts == [f"{number} kilograms = {number}000 grams" for number in range(SEQUENCES)]

    run(body)


def test_draining_does_not_wait_for_readers_that_have_gone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            streams = [served.chat(ask(number)) for number in range(3)]
            gate.once.release()
            await until(lambda: served.stats().running == 3)
            drained = asyncio.ensure_future(served.drain())
            await asyncio.sleep(0.02)
            assert not drained.done()
            streams.clear()
            gc.collect()
            assert not served._streams
            gate.open.set()
            await asyncio.wait_for(drained, 5)

    run(body)


def test_draining_has_an_end(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            stream = served.generate("1", max_new_tokens=100)
            await until(lambda: served.stats().running == 1)
            await served.drain(0.05)
            gate.open.set()
            await text(stream)
            assert stream.generation.finish == "cancelled"

    run(body)


def test_closing_ends_what_is_at_work(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        served = AsyncModel(model)
        streams = [served.generate("1", max_new_tokens=200, ignore_eos=True) for _ in range(SEQUENCES + 1)]
        await anext(streams[0])
        await served.close()
        await served.close()
        for stream in streams:
            await text(stream)
            assert stream.generation.finish == "cancelled"
        assert free(model)
        with pytest.raises(OverloadError):
            served.generate("1")

    run(body)


def test_closing_while_another_thread_makes_a_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            beside = asyncio.ensure_future(asyncio.to_thread(model.chat, ask(5)))
            await until(lambda: served.stats().running == 1)
            stream = served.chat(ask(6))
            closed = asyncio.ensure_future(served.close())
            await asyncio.sleep(0.02)
            gate.open.set()
            await closed
            await text(stream)
            assert stream.generation.finish == "cancelled"
            assert (await beside).text == "5 kilograms = 5000 grams"

    run(body)


def test_a_step_that_fails_ends_its_own_sequences(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            gate.error = MemoryError("no room")
            streams = [served.chat(ask(number)) for number in range(SEQUENCES + 2)]
            gate.open.set()
            results = await asyncio.gather(*map(text, streams), return_exceptions=True)
            failed = [result for result in results if isinstance(result, BaseException)]
            assert failed and all(isinstance(error, BackendError) and "no room" in str(error) for error in failed)
            assert results[-1] == f"{SEQUENCES + 1} kilograms = {SEQUENCES + 1}000 grams"
            assert free(model) and served.stats().failures == 1
            assert await text(served.chat(ask(3))) == "3 kilograms = 3000 grams"

    run(body)


def test_what_no_step_accounts_for_ends_all_and_not_the_thread(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            compose = model.engine._scheduler.compose
            with monkeypatch.context() as patch:
                patch.setattr(model.engine._scheduler, "compose", lambda: 1 // 0)
                with pytest.raises(BackendError, match="the engine failed: ZeroDivisionError"):
                    await text(served.chat(ask(3)))
            assert model.engine._scheduler.compose == compose
            assert await text(served.chat(ask(3))) == "3 kilograms = 3000 grams"

    run(body)


class Panic(BaseException):
    """What libraries in Rust raise."""


def test_what_is_no_exception_ends_all_and_not_the_thread(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            gate.error = Panic("at the disco")
            streams = [served.chat(ask(number)) for number in range(SEQUENCES)]
            gate.open.set()
            await asyncio.gather(*map(text, streams), return_exceptions=True)
            assert {stream.generation.finish for stream in streams} == {"cancelled"} and free(model)
            assert await text(served.chat(ask(3))) == "3 kilograms = 3000 grams"

    run(body)


def test_a_constraint_that_panics_ends_its_own_sequence(model: Model) -> None:
    class Panics(Anything):
        def mask(self) -> None:
            raise Panic("at the disco")

    async def body() -> None:
        async with AsyncModel(model) as served:
            beside, broken = served.chat(ask(2)), served.chat(ask(3), constraint=Panics())
            with pytest.raises(OptionError, match="the constraint fails; found Panic: at the disco"):
                await text(broken)
            assert await text(beside) == "2 kilograms = 2000 grams"

    run(body)


def test_an_answer_that_cannot_be_read_holds_up_no_other(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            streams = [served.chat(ask(number)) for number in range(3)]
            monkeypatch.setattr(streams[1]._answer, "take", lambda event: 1 // 0)
            first, broken, last = await asyncio.gather(*map(text, streams), return_exceptions=True)
            assert (first, last) == ("0 kilograms = 0000 grams", "2 kilograms = 2000 grams")
            assert isinstance(broken, BackendError) and "ZeroDivisionError" in str(broken)
            await until(lambda: free(model))

    run(body)


def test_rows_without_numbers_end_their_own_sequence(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            take = model.engine._results.take
            spoilt = []

            def spoil(batch: Any, result: Any) -> None:
                if not spoilt and len(batch.seats) == 3:
                    logits = result.logits.copy()
                    logits[1] = np.nan
                    spoilt.append(batch.sequences[1])
                    object.__setattr__(result, "logits", logits)
                take(batch, result)

            monkeypatch.setattr(model.engine._results, "take", spoil)
            streams = [served.chat(ask(number)) for number in range(3)]
            results = await asyncio.gather(*map(text, streams), return_exceptions=True)
            broken = [stream.sequence for stream in streams].index(spoilt[0])
            assert "NaN" in str(results.pop(broken)) and free(model)
            assert results == [f"{n} kilograms = {n}000 grams" for n in range(3) if n != broken]

    run(body)


def test_what_cannot_be_done_is_said_at_once(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            with pytest.raises(PromptError, match="longer than the context"):
                served.generate("1", max_new_tokens=1000)
            with pytest.raises(OptionError, match="temperature"):
                served.chat(ask(1), temperature=-1.0)
            assert free(model)

    run(body)
    with pytest.raises(OptionError, match="max_queue"):
        AsyncModel(model, max_queue=-1)
    with pytest.raises(OptionError, match="queue_seconds"):
        AsyncModel(model, queue_seconds=float("nan"))


def test_one_loop_each(model: Model) -> None:
    served = AsyncModel(model)

    async def first() -> None:
        assert await text(served.chat(ask(3))) == "3 kilograms = 3000 grams"

    async def second() -> None:
        with pytest.raises(OptionError, match="one event loop"):
            served.chat(ask(3))
        await served.close()

    run(first)
    run(second)


def test_it_says_how_long_a_request_has_waited(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with held_up(model, monkeypatch) as (served, gate):
            streams = [served.chat(ask(number)) for number in range(SEQUENCES + 1)]
            gate.once.release()
            await until(lambda: served.stats().running == SEQUENCES)
            await asyncio.sleep(0.05)
            waited = [stream.queue_seconds for stream in streams]
            assert streams[-1].waits and waited[-1] >= 0.05 and waited[0] < waited[-1]
            gate.open.set()
            await text(streams[-1])
            assert streams[-1].queue_seconds >= 0.05

    run(body)


def test_the_time_that_others_are_told_to_wait_is_that_of_a_place(model: Model) -> None:
    async def body() -> None:
        async with AsyncModel(model) as served:
            stream = served.chat(ask(1))
            stream.began -= 1000.0  # it has waited for long
            await text(stream)
            assert 0 < served._taken[0] < 1000

    run(body)


def test_a_stream_of_another_model_is_like_none(model: Model) -> None:
    async def body() -> None:
        with ernie_rt.load("demo", backend="reference", max_context=128) as other:
            async with AsyncModel(model) as served, AsyncModel(other) as another:
                with pytest.raises(OptionError, match="another model"):
                    served.chat(ask(1), like=another.chat(ask(1)))

    run(body)


def test_a_model_that_was_closed() -> None:
    async def body() -> None:
        model = ernie_rt.load("demo", backend="onnx", max_context=128)
        async with AsyncModel(model) as served:
            model.close()
            with pytest.raises(OptionError, match="the model is closed"):
                served.chat(ask(1))

    run(body)
