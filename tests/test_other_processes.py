"""What goes to other processes, and what says why it does not."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

import ernie_rt
from ernie_rt.errors import OptionError, TokenizerError

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def model() -> Iterator[ernie_rt.Model]:
    with ernie_rt.load("demo", backend="reference") as model:
        yield model


def test_records_go_to_other_processes(model: ernie_rt.Model) -> None:
    answer = model.chat(HELLO, max_new_tokens=3)
    located = ernie_rt.locate("demo")
    fresh = pickle.loads(pickle.dumps(located))
    assert located.tokenizer and located.template and located.defaults  # read, and kept
    template = model.template
    assert template is not None
    prompt = template.prompt(HELLO, model.tokenizer)
    records = (
        answer, answer.message, model.config, model.defaults, model.choice, model.limits, model.memory(), model.graph,
        model.lowering, prompt, *model.chat(HELLO, max_new_tokens=2, stream=True),
    )  # fmt: skip
    for record in records:
        assert pickle.loads(pickle.dumps(record)) == record
    for place in (fresh, pickle.loads(pickle.dumps(located)), copy.deepcopy(located)):
        assert place.folder == located.folder and place.config == located.config
        assert place.template.prompt(HELLO, place.tokenizer) == prompt


def test_a_tokenizer_works_in_a_process_that_is_started_anew(model: ernie_rt.Model) -> None:
    texts = ["hello", "你好", "17 times 3"]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert list(pool.map(model.tokenizer.encode, texts)) == [model.tokenizer.encode(text) for text in texts]
        with pytest.raises(TokenizerError, match=r"no such token id; expected 0 to \d+; found 99999999"):
            pool.submit(model.tokenizer.decode, [99999999]).result()


def test_a_model_says_what_it_is_and_that_it_stays(model: ernie_rt.Model) -> None:
    assert repr(model) == "<Model demo on reference, cpu, float32>"
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(
            OptionError, match=r"copied or sent to another process; found <Model demo on .* in each one"
        ):
            send(model)
    with pytest.raises(OptionError, match="a stream cannot be copied or sent to another process"):
        pickle.dumps(model.chat(HELLO, stream=True))
    with ernie_rt.load("demo", backend="reference") as other:
        pass
    assert repr(other) == "<Model demo on reference, cpu, float32, closed>"
