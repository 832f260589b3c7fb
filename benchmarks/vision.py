"""What a picture costs until the first token of an answer, beside transformers on the same random weights.

    python benchmarks/vision.py --picture 640x480 --picture 1920x1080 --dtype bfloat16 --rounds 3

The model is a slice of VL-28B-A3B: as many blocks of its tower and of its decoder as are asked for, in their exact
widths, between the whole resampler, embedding and head; with fewer experts in each pool where memory is short, of which
a token still chooses as many. transformers writes it to a folder, from which both read it. They take turns in one
process, tower and resampler alone, then the whole prompt: the picture and 32 tokens of text. Given are seconds of the
quickest round, how many times as fast ours was, the anonymous memory at most in use beside what was before, and how far
features are off, over their rms, those of transformers in float32 taken as exact.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

import ernie_rt
from ernie_rt.cli.output import anonymous_bytes
from ernie_rt.contract import Step
from ernie_rt.contract.protocols import MAX_PATCHES
from ernie_rt.runtime.inputs import PerToken
from ernie_rt.runtime.items import PlacedItem
from ernie_rt.runtime.sequence import Request
from ernie_rt.vision.grid import size_of
from ernie_rt.vision.item import Item
from ernie_rt.vision.positions import rope_positions

TEXT: Final = 32
"""Tokens, half of them before the picture."""
PLACEHOLDER: Final = 100295
"""From which id on tokens are vision's."""

Floats = npt.NDArray[np.float32]


def write_slice(folder: Path, tower: int, decoder: int, experts: int, dtype: str) -> None:
    """A checkpoint by transformers, whose numbers have the spread that trained ones have."""
    from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration

    text = {"num_hidden_layers": decoder, "moe_num_experts": experts, "mlp_layer_types": None}
    config = Ernie4_5_VLMoeConfig(text_config=text, vision_config={"depth": tower}, dtype=dtype)
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Ernie4_5_VLMoeForConditionalGeneration(config)
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or name.endswith("e_score_correction_bias"):
                parameter.normal_(0.0 if "bias" in name else 1.0, 0.02)
            else:
                parameter.normal_(0.0, 0.02 if "embed_tokens" in name else parameter.shape[-1] ** -0.5)
    model.tie_weights()
    model.save_pretrained(folder)


class Picture:
    """Noise of a size, and a prompt around it."""

    def __init__(self, size: str) -> None:
        width, height = size_of(*map(int, size.split("x")))
        pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        self.size, self.item = size, Item.of("image", pixels)
        half = range(1000, 1000 + TEXT // 2)
        self.ids = (*half, *(PLACEHOLDER,) * self.item.tokens, *half)
        self.positions = rope_positions(len(self.ids), [(TEXT // 2, self.item.merged)])
        (self.piece,) = self.item.pieces(MAX_PATCHES)


class Ours:
    def __init__(self, folder: Path, backend: str, dtype: str, context: int) -> None:
        self.model = ernie_rt.load(
            folder, backend=backend, dtype=dtype, max_context=context, max_batch_tokens=context, reuse=False,
            feature_bytes=1,
        )  # fmt: skip

    def features(self, picture: Picture) -> Floats:
        result = self.model.executable.submit(Step.without_tokens("vision", picture.piece)).result()
        return np.asarray(result.taps["features"], np.float32)

    def first_token(self, picture: Picture) -> None:
        items = (PlacedItem(TEXT // 2, picture.item),)
        inputs = {"positions": PerToken(picture.positions, "count")}
        engine = self.model.engine
        for _ in engine.run(engine.submit(Request(picture.ids, 1, inputs=inputs, items=items))):
            pass


class Transformers:
    def __init__(self, folder: Path, dtype: str) -> None:
        from transformers import AutoModelForImageTextToText

        model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
        self.model = model.eval()

    @torch.inference_mode()
    def features(self, picture: Picture) -> Floats:
        (found,) = self.model.get_image_features(**self._given(picture)).pooler_output
        return np.asarray(found.float().numpy())

    @torch.inference_mode()
    def first_token(self, picture: Picture) -> None:
        ids = torch.tensor([picture.ids])
        self.model(
            input_ids=ids, position_ids=torch.from_numpy(picture.positions).long().T[:, None],
            moe_mm_token_type_ids=(ids >= PLACEHOLDER).int(), use_cache=True, logits_to_keep=1, **self._given(picture),
        )  # fmt: skip

    def _given(self, picture: Picture) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(picture.piece["patches"]).to(self.model.dtype)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([picture.item.grid])}


def measured(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MiB of anonymous memory at most beside what was in use."""
    before = peak = anonymous_bytes()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.002):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    run()
    seconds = time.perf_counter() - began
    stop.set()
    watcher.join()
    return seconds, (peak - before) / (1 << 20)


def compare(ours: Ours, theirs: Transformers, exact: Transformers | None, picture: Picture, rounds: int) -> None:
    print(f"{picture.size}: {len(picture.piece['patches'])} patches, {picture.item.tokens} tokens")
    for name in ("features", "first_token"):
        found: dict[str, list[tuple[float, float]]] = {"ernie-rt": [], "transformers": []}
        for _ in range(rounds):
            for who, contender in (("ernie-rt", ours), ("transformers", theirs)):
                found[who].append(measured(partial(getattr(contender, name), picture)))
        mine, other = (min(seconds for seconds, _ in each) for each in found.values())
        memory = ", ".join(f"{who} {max(peak for _, peak in each):.0f} MiB" for who, each in found.items())
        print(
            f"  {name}: ernie-rt {mine:.2f} s, transformers {other:.2f} s, {other / mine:.2f} times; {memory}",
            flush=True,
        )
    if exact is not None:
        right = exact.features(picture)
        for who, contender in (("ernie-rt", ours), ("transformers", theirs)):
            off = np.sqrt(np.mean((contender.features(picture) - right) ** 2) / np.mean(right**2))
            print(f"  features of {who} are off by {off:.2e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="append", metavar="WIDTHxHEIGHT", help="may be given again")
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--tower", type=int, default=4, help="blocks")
    parser.add_argument("--decoder", type=int, default=4, help="blocks")
    parser.add_argument("--experts", type=int, default=16, help="of each pool; 28B has 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--exact", action="store_true", help="say how far features are off float32")
    parser.add_argument("--folder", type=Path, help="where the slice is, or is to be kept (default: nowhere)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pictures = [Picture(size) for size in given.picture or ["640x480", "1920x1080"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "config.json").exists():
            write_slice(folder, given.tower, given.decoder, given.experts, given.dtype)
        context = max(len(picture.ids) for picture in pictures) + 1
        ours, theirs = Ours(folder, given.backend, given.dtype, context), Transformers(folder, given.dtype)
        exact = Transformers(folder, "float32") if given.exact else None
        for picture in pictures:
            compare(ours, theirs, exact, picture, given.rounds)


if __name__ == "__main__":
    main()
