"""Write the goldens of the conformance suite, from the float64 reference: python tools/goldens.py

Texts, the oracle's answers, and what it says of selected positions, about the demo model as it is:
`ernie_rt/conformance/cases/goldens.json`. Takes about a minute and a half on one core. To be run whenever the demo
model has changed; a test compares the digests.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from demo.curriculum import LANGUAGES, WEIGHTS, draw
from ernie_rt.conformance.goldens import FORMAT, NOISES, TOP, divergence, sketch, usual, weights_digest
from ernie_rt.conformance.metrics import TIE_LIMIT
from ernie_rt.conformance.models import Specimen, run_model
from ernie_rt.conformance.oracle import Walk
from ernie_rt.conformance.rounding import rows_rms
from ernie_rt.conformance.subject import Subject
from ernie_rt.contract.step import Step
from ernie_rt.graph.types import Weight
from ernie_rt.host import PluginHost
from ernie_rt.location import Located, locate
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.writing import write_atomic

Array = npt.NDArray[Any]

FILE: Final = Path(__file__).parents[1] / "ernie_rt/conformance/cases/goldens.json"
ANSWER: Final = {"chat": 24, "plain": 32, "long": 24}
"""How many tokens an answer has at most; one to a chat ends with the end token."""
STRIDE: Final = {"chat": 4, "plain": 4, "long": 40}
"""Every how many tokens of a prompt a position is kept; of an answer all are."""
PLAIN: Final = (24, 40, 64, 96)
LONG: Final = (1000,)
"""Lengths of prompts; one more conversation fills the context to its last token."""
MORE: Final = (63, 256)
"""Texts to be teacher-forced beside these, and their length."""


class Writer:
    """Draws texts from the curriculum, as training never sees them."""

    def __init__(self, located: Located, seed: int) -> None:
        self._located = located
        self._random = random.Random(seed)

    def chat(self, task: str, language: Any) -> list[int]:
        item = draw(self._random, task, language, "held_out")
        return self._prompt(item.messages)

    def plain(self, length: int) -> list[int]:
        """Stories in both languages, without any format."""
        stories = (draw(self._random, "story", self._random.choice(LANGUAGES), "held_out") for _ in itertools.count())
        return self._filled((self._located.tokenizer.encode(story.answer + "\n") for story in stories), length)

    def conversation(self, length: int) -> list[int]:
        """As many turns as fit, the last one a question."""
        turns: list[dict[str, str]] = []
        ids: list[int] = []
        while True:
            item = draw(self._random, self._task(), self._random.choice(LANGUAGES), "held_out")
            longer = self._prompt([*turns, *item.messages])
            if len(longer) > length:
                return ids
            ids = longer
            turns += [*item.messages, {"role": "assistant", "content": item.answer}]

    def mixed(self, length: int) -> list[int]:
        """Questions with their answers, one conversation after the other."""

        def each() -> Iterator[list[int]]:
            while True:
                item = draw(self._random, self._task(), self._random.choice(LANGUAGES), "held_out")
                yield self._prompt(item.messages) + self._located.tokenizer.encode(item.answer)

        return self._filled(each(), length)

    def _filled(self, parts: Iterator[list[int]], length: int) -> list[int]:
        ids: list[int] = []
        while len(ids) < length:
            ids += next(parts)
        return ids[:length]

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        template = self._located.template
        assert template is not None
        return list(template.prompt(messages, self._located.tokenizer).ids)

    def _task(self) -> str:
        return self._random.choice(list(WEIGHTS))


def make(located: Located) -> dict[str, Any]:
    assert located.folder is not None
    writer = Writer(located, 2048)
    draws = [("chat", partial(writer.chat, task, language)) for task in WEIGHTS for language in LANGUAGES]
    draws += [("plain", partial(writer.plain, length)) for length in PLAIN]
    draws += [("long", partial(writer.plain, length)) for length in LONG]
    longest = located.config.max_position_embeddings
    draws += [("long", partial(writer.conversation, longest - ANSWER["long"]))]
    oracle = Oracle(located)
    return {
        "format": FORMAT,
        "model": "demo",
        "digest": weights_digest(located.folder),
        "texts": [settled(oracle, kind, prompt) for kind, prompt in draws],
        "more": [writer.mixed(MORE[1]) for _ in range(MORE[0])],
    }


def settled(oracle: Oracle, kind: str, prompt: Callable[[], list[int]]) -> dict[str, Any]:
    """A text in which float32 decides no choice of experts; those in which it does are drawn again.

    Whatever comes after such a choice differs by far more than rounding, and a backend without taps does not show it.
    """
    while True:
        text = oracle.text(kind, prompt())
        if text["clear"]["float32"] == len(text["ids"]):
            return text


class Oracle:
    """The reference in float64, and rounded as usual in each dtype by the experts that float64 chose."""

    def __init__(self, located: Located) -> None:
        self._located = located
        self._loaded: dict[tuple[str, int], Array] = {}

    def answer(self, kind: str, prompt: list[int]) -> list[int]:
        """The greedy answer of the reference, in float64: that to a question as far as the end token."""
        located, subject = self._located, Subject.of(PluginHost(), "reference", "cpu", "float64")
        specimen = Specimen(kind, located.config, (tuple(prompt),), ANSWER[kind], located.weights, batch_tokens=256)
        (one,) = run_model(subject, specimen, batches=False, taps=False, all_logits=False).told
        ends = set(located.config.eos_token_id) if kind == "chat" else ()
        end = next((i for i, id in enumerate(one.generated) if id in ends), ANSWER[kind])
        return list(one.generated[: end + 1])

    def text(self, kind: str, prompt: list[int]) -> dict[str, Any]:
        answer = self.answer(kind, prompt)
        ids = prompt + answer
        graph, step = build_graph(self._located.config, "float64"), Step.whole([ids])
        inputs, bindings = step.inputs(graph), step.bindings(graph)

        def load(weight: Weight) -> Array:
            key = weight.name, step.page_size if "P" in weight.type.dims else 0
            if key not in self._loaded:
                source = self._located.weights()
                self._loaded[key] = np.empty(weight.type.shape({"P": step.page_size}))
                source.fill(weight, "data", self._loaded[key])
                source.close()
            return self._loaded[key]

        graph = build_graph(self._located.config, "float64")
        free = Walk(graph, load, step.page_size, "float64", None).run(inputs, bindings)
        logits = free.outputs["logits"]
        assert answer == logits[len(prompt) - 1 : -1].argmax(-1).tolist(), "the oracle answers what it says is best"
        positions = sorted({*range(0, len(prompt), STRIDE[kind]), *range(len(prompt) - 1, len(ids))})
        top = np.argsort(-logits[positions], axis=-1, kind="stable")[:, :TOP]
        exact = sketch(logits[positions], top)
        noises: dict[str, list[float]] = {}
        divergences: dict[str, list[float]] = {}
        clear: dict[str, int] = {}
        choice = {scope: route.ids for scope, route in free.routes.items()}
        for dtype in NOISES:
            graph = build_graph(self._located.config, dtype)
            rough = Walk(graph, load, step.page_size, dtype, usual(dtype).of).run(inputs, bindings, choice)
            found = sketch(rough.outputs["logits"][positions].astype(np.float64), top)
            noises[dtype] = _short(rows_rms(found - exact))
            divergences[dtype] = _short(divergence(exact, found))
            close = np.zeros(len(ids), bool)
            for scope, route in free.routes.items():
                close |= route.distance() <= TIE_LIMIT * route.noise(rough.routes[scope])
            clear[dtype] = int(close.argmax()) if close.any() else len(ids)
        print(f"{kind}: {len(prompt)} + {len(answer)} tokens, {len(positions)} positions, clear {clear}", flush=True)
        return {
            "kind": kind,
            "prompt": len(prompt),
            "ids": ids,
            "positions": positions,
            "clear": clear,
            "noise": noises,
            "kl": divergences,
            "top": top.tolist(),
            "exact": [[float(str(number)) for number in row] for row in exact.astype(np.float32)],
        }


def _short(numbers: Array) -> list[float]:
    return [float(f"{number:.3g}") for number in numbers]


def text_of(made: Mapping[str, Any]) -> str:
    """JSON with a line for each text, so that a change shows where it is."""
    lines = {name: json.dumps(value) for name, value in made.items() if not isinstance(value, list)}
    for name in ("texts", "more"):
        lines[name] = "[\n" + ",\n".join(json.dumps(each, separators=(",", ":")) for each in made[name]) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {value}" for name, value in lines.items()) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="demo", help="the folder of the demo model, when it is not in its place")
    located = locate(parser.parse_args().model)
    with write_atomic(FILE) as file:
        file.write(text_of(make(located)).encode())
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
