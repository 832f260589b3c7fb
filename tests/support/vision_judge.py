"""transformers as the judge of vision-language models: random checkpoints, prompts with pictures and videos, answers.

Where Baidu's rules differ from transformers', Baidu's are handed to it: positions, and which experts serve a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ernie_rt.runtime.inputs import POSITIONS, PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.session import Model
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions
from support.judge import MIN_MARGIN, MIN_ROUTER_GAP, MIN_VARIETY, Floats, float64_throughout, rms
from support.vision_language import IMAGE, VIDEO, make_model, write_paddle_twin, write_published_twin

Layout = Literal["saved", "packed", "published", "paddle"]
GREEDY_TOKENS: Final = 32
ONE_PIECE: Final = 1 << 20
MARKED: Final = {"image": (190, 191), "video": (192, 193)}


@dataclass(frozen=True, slots=True)
class Spec:
    """A checkpoint: what differs from the configs of `vision_language`, and how it is stored."""

    name: str
    layout: Layout
    text: Mapping[str, Any]
    tower: Mapping[str, Any]
    tied: bool
    stored: torch.dtype

    def write(self, folder: Path, seed: int) -> Path:
        model = make_model(tied=self.tied, text=self.text, tower=self.tower, seed=seed).to(self.stored)
        saved = folder / f"{seed}-saved"
        if self.layout == "packed":
            model.save_pretrained(saved, save_original_format=False)
            return saved
        model.save_pretrained(saved)
        if self.layout == "saved":
            return saved
        write = write_published_twin if self.layout == "published" else write_paddle_twin
        return write(saved, folder / f"{seed}-{self.layout}")


def _rope(*sections: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": list(sections)}}


SHAPES: Final[Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "usual": ({}, {}),
    "no-shared": ({"moe_num_shared_experts": 0}, {}),
    "one-shared": ({"moe_num_shared_experts": 1, "num_key_value_heads": 4}, {"depth": 1}),
    "leading-dense": ({"num_hidden_layers": 4, "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 2}, {}),
    "all-sparse": ({"num_hidden_layers": 2, "mlp_layer_types": ["sparse"] * 2}, {}),
    "last-dense": ({"mlp_layer_types": ["dense", "sparse", "dense"]}, {"hidden_size": 48, "intermediate_size": 96}),
    "many-experts": ({"moe_num_experts": 16, "moe_k": 6}, {}),
    "one-expert": ({"moe_num_experts": 4, "moe_k": 1}, {}),
    "wide-vision": ({"moe_intermediate_size": [8, 40]}, {}),
    "more-time": (_rope(2, 2, 4), {}),
    "large-heads": ({"hidden_size": 128, **_rope(6, 6, 4)}, {}),
    "deep-tower": ({"num_key_value_heads": 1}, {"depth": 4, "hidden_size": 64, "num_heads": 4}),
}


def _specs() -> Iterator[Spec]:
    """Each shape packed and in one of the other layouts, one of them tied; every other one in 16 bits."""
    others: tuple[Layout, ...] = ("saved", "published", "paddle")
    for place, (name, (text, tower)) in enumerate(SHAPES.items()):
        stored = (torch.float32, torch.bfloat16)[place % 2]
        layouts: tuple[Layout, ...] = ("packed", others[place % 3])
        for turn, layout in enumerate(layouts):
            yield Spec(f"{name}, {layout}", layout, text, tower, (place + turn) % 2 == 0, stored)


SPECS: Final[Mapping[str, Spec]] = {spec.name: spec for spec in _specs()}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids with placeholders, the items that they stand for, and positions by Baidu's rule."""

    ids: tuple[int, ...]
    items: tuple[PlacedItem, ...] = ()

    @classmethod
    def of(cls, *parts: Sequence[int] | Item) -> Prompt:
        ids: list[int] = []
        items: list[PlacedItem] = []
        for part in parts:
            if isinstance(part, Item):
                items.append(PlacedItem(len(ids), part))
                ids += [IMAGE if part.kind == "image" else VIDEO] * part.tokens
            else:
                ids += part
        return cls(tuple(ids), tuple(items))

    def request(self, new_tokens: int) -> Request:
        """What an engine is asked, to keep all logits."""
        positions = PerToken(self.positions(len(self.ids)), "count")
        return Request(self.ids, new_tokens, all_logits=True, items=self.items, inputs={POSITIONS: positions})

    def positions(self, length: int) -> NDArray[np.int32]:
        """Of the prompt and what follows, `[length, 3]`."""
        grids = [(placed.start, placed.item.merged) for placed in self.items if isinstance(placed.item, Item)]
        prompt = rope_positions(len(self.ids), grids)
        after = np.arange(length - len(prompt), dtype=np.int32)[:, None] + prompt.max() + 1
        return np.concatenate([prompt, np.repeat(after, 3, 1).astype(np.int32)])


def picture(rng: np.random.Generator, height: int, width: int, frames: int = 1) -> Item:
    """Noise, of so many tokens; with several frames a video."""
    pixels = rng.integers(0, 256, (frames, 28 * height, 28 * width, 3), np.uint8)
    return Item.of("image" if frames == 1 else "video", pixels)


def prompts() -> dict[str, Prompt]:
    """A text, a picture, several, videos, one of which is longer than its frames are wide, and all of it mixed: items
    first and last, and ids that are vision but no placeholders."""
    rng = np.random.default_rng(7)

    def words(count: int) -> list[int]:
        return rng.integers(3, IMAGE, count).tolist()

    def marked(item: Item) -> tuple[Sequence[int] | Item, ...]:
        start, end = MARKED[item.kind]
        return [start], item, [end]

    return {
        "text": Prompt.of(words(40)),
        "image": Prompt.of(words(6), *marked(picture(rng, 2, 3)), words(7)),
        "images": Prompt.of(words(3), *marked(picture(rng, 1, 1)), *marked(picture(rng, 4, 2)), words(5),
                            *marked(picture(rng, 3, 3)), words(4)),
        "video": Prompt.of(words(2), *marked(picture(rng, 2, 2, 4)), words(5), *marked(picture(rng, 1, 2, 12)),
                           words(6)),
        "mixed": Prompt.of(picture(rng, 2, 2), words(3), *marked(picture(rng, 1, 3, 6)), [195, 196, 199], words(4),
                           picture(rng, 3, 2)),
    }  # fmt: skip


class Judge:
    """A checkpoint in transformers, in one dtype."""

    def __init__(self, folder: Path, dtype: Literal["float64", "bfloat16"] = "float64") -> None:
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        logging.disable_progress_bar()
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", experts_implementation="eager"
        )
        self.model = model.eval()
        self.router_gap = math.inf
        for name, module in model.named_modules():
            if name.endswith("_moe.gate"):
                module.register_forward_hook(self._watch)

    def _watch(self, gate: Any, inputs: Any, outputs: Any) -> None:
        logits, _, _ = outputs
        biased = torch.softmax(logits.double(), dim=-1) + gate.moe_statics.e_score_correction_bias.double().squeeze()
        if len(biased):
            ranked = biased.sort(dim=-1, descending=True).values
            self.router_gap = min(self.router_gap, (ranked[:, gate.top_k - 1] - ranked[:, gate.top_k]).min().item())

    def exact(self, prompt: Prompt, tokens: int) -> tuple[Floats, list[int], float]:
        """The same in float64, where transformers computes in float32 all the same as well."""
        with float64_throughout(self.model):
            return self.answer(prompt, tokens)

    @torch.no_grad()
    def answer(self, prompt: Prompt, tokens: int) -> tuple[Floats, list[int], float]:
        """The logits after every token of the prompt and of the answer, the last one's aside; the answer, greedy, of so
        many tokens; and the smallest margin between the best two logits of a step, over their rms."""
        from transformers import DynamicCache

        positions = torch.from_numpy(prompt.positions(len(prompt.ids) + tokens)).long().T[:, None]  # [3, 1, T]
        cache, ids, given = DynamicCache(config=self.model.config.text_config), list(prompt.ids), self._pixels(prompt)
        entered, margin, found = 0, math.inf, []
        for _ in range(max(tokens, 1)):
            new = torch.tensor([ids[entered:]])
            result = self.model(
                input_ids=new,
                position_ids=positions[..., entered : len(ids)],
                moe_mm_token_type_ids=(new >= IMAGE).int(),
                past_key_values=cache,
                use_cache=True,
                **given,
            )
            found.append(result.logits[0].double().numpy())
            best, second = result.logits[0, -1].double().topk(2).values
            margin = min(margin, float(best - second) / rms(found[-1][-1]))
            entered, given = len(ids), {}
            ids.append(int(result.logits[0, -1].argmax()))
        return np.concatenate(found), ids[len(prompt.ids) :][:tokens], margin

    def _pixels(self, prompt: Prompt) -> dict[str, torch.Tensor]:
        dtype, given = self.model.dtype, {}
        for kind, pixels, grid in (
            ("image", "pixel_values", "image_grid_thw"),
            ("video", "pixel_values_videos", "video_grid_thw"),
        ):
            items = [each.item for each in prompt.items if isinstance(each.item, Item) and each.item.kind == kind]
            if items:
                patches = [piece["patches"] for item in items for piece in item.pieces(ONE_PIECE)]
                given[pixels] = torch.from_numpy(np.concatenate(patches)).to(dtype)
                given[grid] = torch.tensor([item.grid for item in items])
        return given


def answer(model: Model, prompt: Prompt, tokens: int = GREEDY_TOKENS) -> tuple[Floats, list[int]]:
    """What `Judge.answer` says, by a model of ours."""
    sequence = model.engine.submit(prompt.request(tokens))
    for _ in model.engine.run(sequence):
        pass
    assert sequence.error is None, sequence.error
    return np.concatenate(sequence.logits).astype(np.float64), sequence.generated


@dataclass(slots=True)
class Oracle:
    """A checkpoint without flaws, and what transformers in float64 makes of prompts."""

    folder: Path
    saved: Path
    """As transformers wrote it."""
    prompts: Mapping[str, Prompt]
    logits: dict[str, Floats] = field(default_factory=dict)
    greedy: dict[str, list[int]] = field(default_factory=dict)


def calibrate(spec: Spec, folder: Path, attempts: int = 20) -> Oracle:
    """The checkpoint of the first seed for which rounding in float32 can change neither a token nor an expert."""
    wanted, tried = prompts(), []
    for seed in range(attempts):
        written = spec.write(folder, seed)
        oracle = Oracle(written, folder / f"{seed}-saved", wanted)
        judge, margin = Judge(oracle.saved), math.inf
        for kind, prompt in wanted.items():
            oracle.logits[kind], oracle.greedy[kind], found = judge.exact(prompt, GREEDY_TOKENS)
            margin = min(margin, found)
        variety = len({token for tokens in oracle.greedy.values() for token in tokens})
        if margin >= MIN_MARGIN and judge.router_gap >= MIN_ROUTER_GAP and variety >= MIN_VARIETY:
            return oracle
        tried.append(f"seed {seed}: margin {margin:.1e}, router gap {judge.router_gap:.1e}, {variety} tokens")
    raise AssertionError(f"{spec.name}: no seed is calibrated\n" + "\n".join(tried))
