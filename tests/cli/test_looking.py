"""What looks into a model, with pictures in its prompt: routing, diff, receipts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ernie_rt
from ernie_rt.host import PluginHost
from ernie_rt.receipts.receipt import Ran
from ernie_rt.receipts.ties import noise_after
from ernie_rt.vision.item import Item
from support.commands import command
from support.vision_checkpoint import write_vision_checkpoint

MODEL: dict[str, Any] = {
    "num_hidden_layers": 2, "moe_layer_end_index": [1, 1], "moe_num_experts": [4, 4], "moe_k": 2,
}  # fmt: skip
EAGER = ("--backend", "eager", "--dtype", "float32")
TOKENS = 8
"""Of the picture."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model `sees`, `one.png` and `other.png`."""
    folder = tmp_path_factory.mktemp("looking")
    write_vision_checkpoint(folder / "sees", **MODEL)
    for seed, name in enumerate(("one.png", "other.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (70, 98, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_routing_of_a_picture(here: Path) -> None:
    shown = ("--image", here / "one.png")
    ran = command("routing", here / "sees", "What is it?", *shown, *EAGER, "--json", "--html", here / "page.html")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    (item,) = told["items"]
    assert item["kind"] == "image" and item["grid"] == [1, 2, 4]
    texts = [token["text"] for token in told["tokens"]]
    assert texts[item["start"] : item["start"] + TOKENS] == ["<|IMAGE_PLACEHOLDER|>"] * TOKENS
    assert texts[item["start"] - 1] == "<|IMAGE_START|>"
    of_pool = {(router["pool"], router["tokens"]) for router in told["routers"]}
    assert of_pool == {("vision", TOKENS + 2), ("text", len(texts) - TOKENS - 2)}
    page = (here / "page.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 1 and f'data-start="{item["start"]}"' in page
    chat = command("routing", here / "sees", "What is it?", *shown, "--chat", *EAGER)
    assert chat.code == 0 and "vision 1" in chat.out and "v3: expert 3 of those for pictures" in chat.out
    refused = command("routing", here / "sees", "a", *shown, "--lines")
    assert refused.code == 2 and "--lines are texts, and pictures belong to one" in refused.err


def test_diff_of_a_picture(here: Path) -> None:
    ran = command(
        "diff", "eager:float32", "reference", "--model", here / "sees", "--prompt", "What is it?",
        "--image", here / "one.png", "-n", 2,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = [line.split()[0] for line in ran.out.splitlines() if line]
    assert rows[2:6] == ["vision.rope", "vision.patch", "vision.layers.0", "vision.norm"]
    assert {"vision.spatial", "vision.temporal", "vision.features", "layers.1"} < {*rows}
    assert "same: the same tokens" in ran.out
    assert command("diff", "eager", "reference", "--model", "demo", "-p", "a", "--image", here / "one.png").code == 2


def test_a_receipt_of_a_picture_is_replayed_with_the_picture(here: Path) -> None:
    question = ("run", here / "sees", "What is it?", "--image", here / "one.png", *EAGER, "-n", 4)
    ran = command(*question, "--receipt", here / "r.json")
    assert ran.code == 0, ran.err
    written = (here / "r.json").read_text("utf-8")
    told = json.loads(written)
    assert told["receipt"] == 2 and "one.png" not in written and len(told["items"]) == 1
    assert told["items"][0]["asked"]["max_pixels"] == 802816  # on a CPU
    again = ("replay", here / "r.json", here / "sees", "--backend", "reference")
    without = command(*again)
    assert without.code == 2 and "1. image of 98x70, sha256 " in without.err
    wrong = command(*again, "--file", here / "other.png")
    assert wrong.code == 2 and "found 1 files, none of which is one of these" in wrong.err
    done = command(*again, "--file", here / "other.png", "--file", here / "one.png")
    assert (done.code, done.out.splitlines()[-1]) == (0, "identical: the same 4 tokens")


def test_what_differs_behind_a_picture_is_judged(here: Path) -> None:
    """Another token in the receipt's answer: the oracle looks at the picture too, and finds it farther than noise."""
    question = ("run", here / "sees", "And this?", "--image", here / "one.png", *EAGER, "-n", 4)
    assert command(*question, "--receipt", here / "s.json").code == 0
    told = json.loads((here / "s.json").read_text("utf-8"))
    told["answer"][1]["id"] = (told["answer"][1]["id"] + 1) % 1000 + 3
    (here / "s.json").write_text(json.dumps(told))
    done = command("replay", here / "s.json", here / "sees", *EAGER, "--file", here / "one.png", "--json")
    assert done.code == 1, done.err
    said = json.loads(done.out)
    assert said["verdict"] == "different" and "the receipt's token is farther from the oracle's" in said["reason"]
    assert said["parting"]["noise"][0] > 0 and said["apart"]["tokens"] == 4


def test_the_oracle_sees_what_the_model_sees(here: Path) -> None:
    """Its logits behind a picture lie as far apart as the log probabilities of the answer."""
    parts = [{"type": "image", "image": here / "one.png"}, {"type": "text", "text": "What is it?"}]
    with ernie_rt.load(here / "sees", backend="reference", dtype="float32") as model:
        answer = model.generate(parts, max_new_tokens=1, temperature=0.0, logprobs=5, ignore_eos=True)
        assert answer.asked is not None
        items = [(start, item) for start, item in answer.asked.items if isinstance(item, Item)]
        source = model.open_weights()
        sides = [Ran("reference", "cpu", "float32")]
        noises = noise_after(model.config, source, sides, answer.asked.ids, PluginHost(), items)
        source.close()
    assert noises is not None and len(items) == 1
    (best, most), *others = answer.logprobs[0].top
    for id, logprob in others:
        assert noises[0].logits[best] - noises[0].logits[id] == pytest.approx(most - logprob, abs=1e-6)
