"""The Python API: what it takes, what it gives, what it refuses, and that nothing stays behind."""

from __future__ import annotations

import gc
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ernie_rt
from ernie_rt.contract import SimpleExecutable
from ernie_rt.errors import (
    BackendError,
    CapacityError,
    CheckpointError,
    ErnieRtError,
    ModelNotFoundError,
    OptionError,
    PromptError,
    TokenizerError,
)
from ernie_rt.graph.types import Plain, Weight
from ernie_rt.loading import Located, load, locate
from ernie_rt.reference.backend import ReferenceBackend
from ernie_rt.session import Model
from ernie_rt.weights.synthetic import Synthetic
from support.configs import small
from support.pages import free_pages

IDS = [5, 9, 2, 40, 17, 33, 8]
MODEL = Located(small(eos_token_id=2, torch_dtype="float32"))


def synthetic(**options: Any) -> Model:
    defaults: dict[str, Any] = {"weights": Synthetic(3), "backend": "reference", "threads": 1}
    return load(MODEL, **defaults | options)


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """The reference on synthetic weights, three sequences at once; every test leaves its cache free."""
    with synthetic(max_sequences=3, max_batch_tokens=16) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def all_pages_come_back(model: Model) -> Iterator[None]:
    yield
    assert free_pages(model._engine) == model._executable.cache.pages


@pytest.fixture(scope="module")
def written(untrained: Path) -> Iterator[Model]:
    with load(untrained, backend="eager", device="cpu", dtype="float32", max_sequences=3, threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("backend", "dtype", "expected"),
    [
        ("reference", "auto", np.float32),
        ("reference", "float32", np.float32),
        ("reference", "float64", np.float64),
        ("eager", "float32", np.float32),
        ("eager", "bfloat16", np.float32),
        ("eager", "float16", np.float32),
    ],
)
def test_logits_are_float32_whatever_the_activations(backend: str, dtype: str, expected: type) -> None:
    with synthetic(backend=backend, device="cpu", dtype=dtype) as loaded:
        logits = loaded.logits(IDS)
    assert logits.dtype == expected and logits.shape == (len(IDS), MODEL.config.vocab_size)
    assert np.isfinite(logits).all() and logits.std() > 0.1


def test_logits_of_several_prompts(model: Model) -> None:
    prompts = [IDS, IDS[:1], IDS[2:5], IDS[::-1]]  # more than fit at once
    for ids, logits in zip(prompts, model.logits_batch(prompts), strict=True):
        np.testing.assert_allclose(logits, model.logits(ids, chunk=2), atol=1e-9)
    assert model.logits_batch([]) == [] and model.generate_batch([]) == []
    with pytest.raises(PromptError, match=r"one text in place of several\. Put it into a list"):
        model.generate_batch("two words")


def test_greedy_is_the_largest_logit(model: Model) -> None:
    new = model.generate_ids(IDS, max_new_tokens=12, ignore_eos=True)
    assert len(new) == 12
    logits = model.logits([*IDS, *new])
    assert new == logits[len(IDS) - 1 : -1].argmax(-1).tolist()


def test_generate_and_stream_and_batch_agree(written: Model) -> None:
    prompts = ["The old teacher", "清晨,老师", "Question 7"]
    batch = written.generate_batch([written.tokenizer.encode(text) for text in prompts], max_new_tokens=16)
    assert written.generate_batch(prompts, max_new_tokens=16) == batch
    for text, ids in zip(prompts, batch, strict=True):
        given = written.tokenizer.encode(text)
        assert written.generate_ids(given, max_new_tokens=16) == ids
        generation = written.generate(text, max_new_tokens=16)
        for prompt in (text, given):
            pieces = list(written.generate(prompt, max_new_tokens=16, stream=True))
            assert tuple(piece.id for piece in pieces) == tuple(ids) == generation.ids
            assert "".join(piece.text for piece in pieces) == generation.text == written.tokenizer.decode(ids)
            assert [piece.finish for piece in pieces] == [None] * (len(ids) - 1) + [generation.finish]
        assert generation.prompt_tokens == len(given)
        assert generation.prefill_seconds > 0 and generation.decode_seconds >= 0


def test_a_stream_that_is_left_early_frees_its_cache(written: Model) -> None:
    pages = free_pages(written._engine)
    stream = written.generate("The old teacher", max_new_tokens=100, ignore_eos=True, stream=True)
    for _ in range(5):
        next(stream)
    assert free_pages(written._engine) < pages
    stream.close()
    assert free_pages(written._engine) == pages
    for _ in written.generate("The old teacher", max_new_tokens=100, ignore_eos=True, stream=True):
        break
    assert free_pages(written._engine) == pages
    with pytest.raises(ZeroDivisionError):
        for _ in written.generate("The old teacher", max_new_tokens=100, ignore_eos=True, stream=True):
            1 / 0  # noqa: B018
    assert free_pages(written._engine) == pages


def test_two_streams_at_once(written: Model) -> None:
    alone = [
        [p.id for p in written.generate(text, max_new_tokens=9, ignore_eos=True, stream=True)]
        for text in ("one", "two")
    ]
    streams = [written.generate(text, max_new_tokens=9, ignore_eos=True, stream=True) for text in ("one", "two")]
    together = [[piece.id for piece in stream] for stream in streams]
    assert together == alone


def test_stop_at_eos_or_go_on() -> None:
    with synthetic() as loaded:
        new = loaded.generate_ids(IDS, max_new_tokens=8, ignore_eos=True)
    third = new[2]
    stop = new.index(third) + 1
    located = Located(small(eos_token_id=[60, third], torch_dtype="float32"))
    with load(located, weights=Synthetic(3), backend="reference") as loaded:
        assert loaded.generate_ids(IDS, max_new_tokens=8) == new[:stop]
        assert loaded.generate_ids(IDS, max_new_tokens=8, ignore_eos=True) == new
        assert loaded.generate_ids(IDS, max_new_tokens=stop) == new[:stop]
        assert loaded.generate_batch([IDS, IDS[:3]], max_new_tokens=8)[0] == new[:stop]


def test_why_a_generation_ended(written: Model, untrained: Path, tmp_path: Path) -> None:
    generation = written.generate("The old", max_new_tokens=6, ignore_eos=True)
    assert generation.finish == "length" and len(generation.ids) == 6
    folder = shutil.copytree(untrained, tmp_path / "model")
    text = (folder / "config.json").read_text()
    stop = generation.ids[2]
    (folder / "config.json").write_text(text.replace('"eos_token_id": 2', f'"eos_token_id": {stop}'))
    with load(folder, backend="eager", device="cpu", dtype="float32", threads=1) as loaded:
        stopped = loaded.generate("The old", max_new_tokens=6)
    assert stopped.finish == "stop" and stopped.ids == generation.ids[: generation.ids.index(stop) + 1]


@pytest.mark.parametrize(
    "ids",
    [
        np.array(IDS),
        np.array(IDS, np.uint8),
        np.array(IDS, np.int64)[::1],
        tuple(IDS),
        iter(IDS),
        [np.int32(id) for id in IDS],
        range(3, 6),
    ],
    ids=lambda ids: type(ids).__name__,
)
def test_any_iterable_of_integers_is_a_prompt(ids: Any, model: Model) -> None:
    assert len(model.generate_ids(ids, max_new_tokens=2, ignore_eos=True)) == 2


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the prompt is empty"),
        (np.array([], np.int64), "the prompt is empty"),
        ([1, -1], "outside the vocabulary; expected 0 to 60; found -1"),
        ([61], "outside the vocabulary; expected 0 to 60; found 61"),
        ([2**70], "outside the vocabulary"),
        (np.array([1, 2**40]), "outside the vocabulary"),
        ([1.0], "must be integers"),
        (np.array([1.0, 2.0]), "must be integers"),
        ([np.bool_(True)], "must be integers"),
        (np.zeros((2, 3), np.int64), "must be integers"),
        (["1"], "must be integers"),
        ([None], "must be integers"),
        (None, "must be integers"),
        (7, "must be integers"),
    ],
    ids=str,
)
def test_bad_ids_are_prompt_errors(ids: Any, message: str, model: Model) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: model.logits(ids),
        lambda: model.generate_ids(ids, max_new_tokens=2),
        lambda: model.logits_batch([IDS, ids]),
        lambda: model.generate_batch([IDS, ids, IDS], max_new_tokens=2),
    )
    for call in calls:
        with pytest.raises(PromptError, match=message):
            call()
    assert not model._engine._scheduler.waiting  # nothing of a refused batch stays queued
    assert len(model.generate_ids(IDS, max_new_tokens=2, ignore_eos=True)) == 2


def test_text_has_its_places(model: Model) -> None:
    for call in (model.logits, model.generate_ids):
        with pytest.raises(PromptError, match="must be integers"):
            call("text")  # type: ignore[operator]
    for call in (model.logits_batch, model.generate_batch):
        with pytest.raises(TokenizerError, match="without a folder"):
            call([IDS, "text"])  # type: ignore[operator]


def test_the_context_bounds_prompt_and_answer() -> None:
    with synthetic(max_context=12) as loaded:
        assert loaded.logits([1] * 12).shape[0] == 12
        assert len(loaded.generate_ids([1] * 5, max_new_tokens=7, ignore_eos=True)) == 7
        for prompt, new in (([1] * 40, 1), ([1] * 13, 1), ([1] * 5, 9)):
            with pytest.raises(
                PromptError, match="longer than the context; expected at most 12 tokens; found"
            ) as caught:
                loaded.generate_ids(prompt, max_new_tokens=new)
            assert "raise max_context" in str(caught.value)
        with pytest.raises(PromptError, match="longer than the context"):
            loaded.generate_batch([IDS, [1] * 40], max_new_tokens=2)
        assert not loaded._engine._scheduler.waiting
        with pytest.raises(PromptError, match="longer than the context"):
            loaded.logits([1] * 13)
        assert free_pages(loaded._engine) == loaded._executable.cache.pages


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_context": 257},
            "max_context is not possible; expected 1 to 256, the model's longest context; found 257",
        ),
        ({"max_context": 0}, "max_context must be a whole number above 0"),
        ({"max_context": -5}, "max_context must be a whole number above 0"),
        ({"max_sequences": 0}, "max_sequences must be a whole number above 0; found 0"),
        ({"max_batch_tokens": -1}, "max_batch_tokens must be a whole number above 0; found -1"),
        ({"max_patches": 0}, "max_patches must be a whole number above 0; found 0"),
        ({"feature_bytes": 0.5}, "feature_bytes must be a whole number above 0; found 0.5"),
        ({"dtype": "fp32"}, "unknown dtype 'fp32'"),
        ({"backend": "nope"}, "no backend 'nope'; expected one of cudagraph, eager, onnx, reference"),
        ({"taps": ["layers.7.mlp"]}, "no scope 'layers.7.mlp' to tap"),
    ],
)
def test_bad_options_of_load(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        synthetic(**options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.7}, "temperature is out of range; expected a number from 0 to 100; found -0.7"),
        ({"temperature": float("nan")}, "temperature is out of range"),
        ({"top_p": 0}, "top_p is out of range; expected above 0"),
        ({"logit_bias": {1 << 20: 1.0}}, "logit_bias holds a token id outside the vocabulary; expected 0 to"),
        ({"stop": "one"}, "stop is no list of strings"),
        ({"stop": [""]}, "an impossible stop string"),
        ({"stop": ["caf\udce9"]}, "an impossible stop string"),
        ({"stop_ids": ["x"]}, "a token id in stop_ids is out of range"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number above 0; found 0"),
        ({"max_new_tokens": -3}, "max_new_tokens must be a whole number above 0; found -3"),
    ],
)
def test_bad_options_of_generation(options: dict[str, Any], message: str, model: Model, written: Model) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: model.generate_ids(IDS, **options),
        lambda: model.generate_batch([IDS], **options),
        lambda: written.generate("x", **options),
        lambda: next(written.generate("x", **options, stream=True)),
    )
    for call in calls:
        with pytest.raises(OptionError, match=message):
            call()


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_is_positive(chunk: int, model: Model) -> None:
    with pytest.raises(OptionError, match=f"chunk must be a whole number above 0; found {chunk}"):
        model.logits(IDS, chunk=chunk)


def test_a_model_without_a_tokenizer(model: Model, untrained: Path, tmp_path: Path) -> None:
    for call in (
        lambda: model.tokenizer,
        lambda: model.generate("x"),
        lambda: next(model.generate("x", stream=True)),
        lambda: next(model.generate(IDS, stream=True)),
    ):
        with pytest.raises(TokenizerError, match="without a folder has no tokenizer"):
            call()
    assert not model._engine._scheduler.waiting
    folder = shutil.copytree(untrained, tmp_path / "model")
    (folder / "tokenizer.model").unlink()
    with load(folder, backend="reference") as loaded:
        assert len(loaded.generate_ids(IDS, max_new_tokens=2, ignore_eos=True)) == 2
        with pytest.raises(TokenizerError, match="there is no tokenizer"):
            loaded.generate("x")


class Counting(Synthetic):
    def __init__(self) -> None:
        super().__init__(3)
        self.filled: list[str] = []
        self.closed = 0

    def fill(self, weight: Weight, part: str, out: Any, index: tuple[int, ...] = ()) -> None:
        self.filled.append(weight.name)
        super().fill(weight, part, out, index)

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_too_little_memory_is_said_before_a_weight_is_read(backend: str) -> None:
    source = Counting()
    with synthetic(backend=backend, device="cpu", weights=source) as loaded:
        needed = loaded.memory().kept_bytes
        assert set(source.filled) == {weight.name for weight in loaded.graph.weights} and source.closed == 1
    synthetic(backend=backend, device="cpu", memory_bytes=needed).close()
    source = Counting()
    with pytest.raises(CapacityError, match="does not fit into the memory limit") as caught:
        synthetic(backend=backend, device="cpu", memory_bytes=needed - 1, weights=source)
    assert caught.value.exit_code == 1 and "a shorter context" in str(caught.value.hint)
    assert source.filled == [] and source.closed == 1


def test_a_cache_beyond_the_machine_is_refused() -> None:
    source = Counting()
    with pytest.raises(CapacityError, match="does not fit into the memory that is free"):
        synthetic(max_sequences=1 << 20, weights=source)
    assert source.filled == []


def test_progress_ends_at_the_whole() -> None:
    seen: list[tuple[int, int]] = []
    with synthetic(progress=lambda done, total: seen.append((done, total))) as loaded:
        total = sum(w.nbytes() for w in loaded.graph.weights if isinstance(w.storage, Plain))
    assert {whole for _, whole in seen} == {total}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen}) and seen[-1][0] == total


def test_unused_tensors_are_listed_with_the_reason(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    with load(folder, backend="reference") as loaded:
        assert loaded.unused == ()
        logits = loaded.logits(IDS)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.mtp_emb_norm.0.weight"] = tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with load(folder, backend="reference") as loaded:
        assert dict(loaded.unused) == {
            "lm_head.weight": "the same as the embedding, to which the model ties its head",
            "model.mtp_emb_norm.0.weight": "speculative head, not used by the main graph",
        }
        np.testing.assert_array_equal(loaded.logits(IDS), logits)


TAPS = {
    "embed": (7, 16),
    "layers.0.attention": (7, 16),
    "layers.1.attention.qkv": (7, 64),
    "layers.1.mlp.route": (7, 2),
    "layers.1.mlp.experts": (7, 16),
    "layers.2.mlp": (7, 16),
    "head.norm": (7, 16),
    "head": (7, 61),
}
"""Scopes, and the shapes of their values for seven tokens."""


def test_taps_are_the_same_values_on_every_backend() -> None:
    found = {}
    for backend in ("reference", "eager"):
        with synthetic(backend=backend, device="cpu", dtype="float32", taps=TAPS) as model:
            found[backend] = model.tapped(IDS)
            assert {name: value.shape for name, value in found[backend].items()} == TAPS
            np.testing.assert_array_equal(found[backend]["head"].astype(np.float32), model.logits(IDS))
    route = "layers.1.mlp.route"
    np.testing.assert_array_equal(found["reference"][route], found["eager"][route])
    for name in TAPS:
        np.testing.assert_allclose(found["eager"][name], found["reference"][name], atol=2e-5, err_msg=name)


def test_taps_of_a_prompt_in_several_steps_are_joined() -> None:
    with synthetic(taps=TAPS) as whole, synthetic(taps=TAPS, max_batch_tokens=3) as steps:
        joined = steps.tapped(IDS)
        for name, value in whole.tapped(IDS).items():
            np.testing.assert_allclose(joined[name], value, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_taps_leave_the_model_as_it_is(backend: str, model: Model) -> None:
    with synthetic(backend=backend, device="cpu", dtype="float32", taps=[*TAPS, "embed"]) as tapped:
        assert [name for name, _ in tapped.lowering.taps] == sorted(TAPS)
        np.testing.assert_allclose(tapped.logits(IDS), model.logits(IDS), atol=2e-5)
        if backend == "reference":
            split = {decision.scope: decision.reason for decision in tapped.lowering.decisions if not decision.kept}
            assert split["layers.1.attention"] == "the tap layers.1.attention.qkv lies inside"
            assert "layers.0.attention" not in split


def test_a_family_needs_no_folder_with_synthetic_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import ernie_rt.modeling.families as families

    tiny = families.Family("Tiny", MODEL.config, "baidu/tiny", "", ("ERNIE-4.5-Tiny",))
    monkeypatch.setattr(families, "FAMILIES", (tiny,))
    with load("ernie-4.5-tiny", weights=Synthetic(3), backend="reference") as loaded, synthetic() as same:
        assert loaded.config == MODEL.config
        np.testing.assert_array_equal(loaded.logits(IDS), same.logits(IDS))
    with pytest.raises(OptionError, match="without a folder needs `weights`"):
        load(MODEL, backend="reference")


def test_a_reference_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no such model"):
        locate(tmp_path / "absent")
    with pytest.raises(ErnieRtError, match="this is an empty folder"):
        locate(tmp_path)


def test_a_located_model_is_loaded_as_it_is(untrained: Path) -> None:
    located = locate(untrained)
    assert located.folder == untrained and located.tokenizer.vocab_size == located.config.vocab_size
    with load(located, backend="reference") as loaded:
        assert loaded.config is located.config


def test_closing_frees_the_weights_and_may_be_done_twice() -> None:
    tracemalloc.start()
    try:
        loaded = load(
            Located(small(vocab_size=4000, hidden_size=64, torch_dtype="float32")),
            weights=Synthetic(),
            backend="reference",
        )
        loaded.generate_ids(IDS, max_new_tokens=2)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        loaded.close()
        gc.collect()
        freed = held - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert freed > 0.95 * loaded.memory().kept_bytes
    loaded.close()
    with loaded:
        pass


def open_files() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:  # the one that lists the folder
            continue
    return {name for name in found if name.startswith("/")}


def mapped_files(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open_whether_loading_succeeds_or_fails(
    untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    load(folder, backend="reference").close()  # whatever is opened once, by the first load
    before = open_files()
    with load(folder, backend="reference") as loaded:
        assert open_files() == before and not mapped_files(folder)
        loaded.logits(IDS)
    failures: list[tuple[type[ErnieRtError], dict[str, Any]]] = [
        (CapacityError, {"memory_bytes": 1000}),
        (OptionError, {"backend": "nope"}),
        (OptionError, {"taps": ["nowhere"]}),
        (OptionError, {"device": "cuda:99"}),
    ]
    for error, options in failures:
        with pytest.raises(error):
            load(folder, **{"backend": "reference"} | options)
        gc.collect()
        assert open_files() == before and not mapped_files(folder), options

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(folder, backend="reference", progress=interrupt)
    gc.collect()
    assert open_files() == before and not mapped_files(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing, 1: 'model\.norm\.weight'"):
        load(folder)
    gc.collect()
    assert open_files() == before and not mapped_files(folder)


def test_the_public_names_are_these() -> None:
    assert (ernie_rt.load, ernie_rt.locate, ernie_rt.Model, ernie_rt.Located) == (load, locate, Model, Located)


@pytest.mark.parametrize("backend", ["reference", "eager"])
def test_the_cache_has_room_for_so_many_tokens(backend: str) -> None:
    options: dict[str, Any] = {"backend": backend, "dtype": "float32", "device": "cpu", "max_context": 32}
    with synthetic(**options, max_sequences=4) as whole:
        told = whole.generate_batch([IDS] * 6, max_new_tokens=6, ignore_eos=True)
        worst = whole.memory().cache_bytes
    with synthetic(**options, max_sequences=4, cache_tokens=64) as model:
        assert model.memory().cache_bytes == worst // 2
        assert model.generate_batch([IDS] * 6, max_new_tokens=6, ignore_eos=True) == told
    with synthetic(**options, max_sequences=4, cache_tokens=10_000) as model:
        assert model.memory().cache_bytes == worst
    with pytest.raises(
        OptionError, match="cache_tokens has no room for one sequence; expected at least max_context, 32"
    ):
        synthetic(**options, cache_tokens=31)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int4"}, "weights is not possible; expected a WeightSource.*found 'int4'.*ernie-rt quantize"),
        ({"reuse": "no"}, "reuse is not possible; expected True or False; found 'no'"),
        ({"reuse": None}, "reuse is not possible"),
    ],
)
def test_options_of_another_kind(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"(?s){message}"):
        ernie_rt.load("demo", **options)


def test_a_closed_model_says_so() -> None:
    model = synthetic()
    model.close()
    for use in (lambda: model.logits(IDS), lambda: model.generate_ids(IDS), lambda: next(model.stream_ids(IDS))):
        with pytest.raises(OptionError, match="the model is closed"):
            use()


@pytest.mark.parametrize("where", ["claims", "compile", "submit"])
def test_what_a_backend_raises_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("on the way")

    monkeypatch.setattr(SimpleExecutable if where == "submit" else ReferenceBackend, where, fail)
    with pytest.raises(BackendError, match=r"backend 'reference' failed: ZeroDivisionError: on the way") as caught:
        synthetic().logits(IDS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_ids_come_as_they_are_sampled() -> None:
    with synthetic() as model:
        stream = model.stream_ids(IDS, max_new_tokens=4, ignore_eos=True)
        assert [next(stream), *stream] == model.generate_ids(IDS, max_new_tokens=4, ignore_eos=True)


def test_a_bool_is_no_token(model: Model) -> None:
    with pytest.raises(PromptError):
        model.logits([True, 3])


@pytest.mark.parametrize("value", [2.5, "64", True, None, float("nan")])
def test_counts_are_whole_numbers(value: object, model: Model) -> None:
    with pytest.raises(OptionError, match="max_new_tokens must be a whole number above 0"):
        model.generate_ids(IDS, max_new_tokens=value)  # type: ignore[typeddict-item]
    with pytest.raises(OptionError, match="max_sequences must be a whole number above 0"):
        synthetic(max_sequences=value)
    if value is not None:
        for name in ("max_context", "max_batch_tokens", "threads", "memory_bytes"):
            with pytest.raises(OptionError, match=f"{name} must be a whole number above 0"):
                synthetic(**{name: value})
    with pytest.raises(OptionError, match="threads is not possible; expected 1 to 1024; found 99999999"):
        synthetic(threads=99_999_999)
    assert len(model.generate_ids(IDS, max_new_tokens=np.int64(2), ignore_eos=True)) == 2  # type: ignore[typeddict-item]


def test_taps_are_those_of_the_prompt_also_beside_another_sequence() -> None:
    with synthetic(taps=TAPS, max_sequences=2) as model:
        alone = model.tapped(IDS)
        other = model.stream_ids([5, 4, 3], max_new_tokens=20, ignore_eos=True)
        next(other)
        for name, value in model.tapped(IDS).items():
            np.testing.assert_allclose(value, alone[name], atol=1e-12, err_msg=name)
        assert len(list(other)) == 19


def test_closing_a_model_ends_what_is_under_way() -> None:
    model = synthetic(max_sequences=2)
    streams = [model.stream_ids(IDS, max_new_tokens=9, ignore_eos=True) for _ in range(3)]  # the third one waits
    begun = [next(stream) for stream in streams[:2]]
    model.close()
    assert len(begun) == 2
    for stream in streams[:2]:
        assert len(list(stream)) <= 1  # at most what was sampled before
    with pytest.raises(OptionError, match="the model is closed"):
        next(streams[2])
