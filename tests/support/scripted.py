"""A backend that says what it is told to say, and a checkpoint with ERNIE's tokenizer and a chat template to say it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ernie_rt.contract import (
    Accept,
    Done,
    Limits,
    Lowering,
    MemoryReport,
    Node,
    Numerics,
    OpNumerics,
    Step,
    StepResult,
    Target,
    WeightSource,
)
from ernie_rt.contract.contents import PagedContents
from ernie_rt.graph.types import Storage
from ernie_rt.hooks import PLUGIN_API, BackendInfo, hookimpl
from ernie_rt.host import PluginHost
from support.configs import DENSE
from support.tokenizers import ROWS, write_ernie_tokenizer

__all__ = ["PLUGIN_API", "ernie_rt_backends"]

CONFIG = DENSE | {
    "architectures": ["Ernie4_5ForCausalLM"],
    "vocab_size": ROWS,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@hookimpl
def ernie_rt_backends() -> list[BackendInfo]:
    return [BackendInfo("scripted", f"{__name__}:ScriptedBackend", "Says what it is told", {"cpu": ("float32",)})]


def scripted(*answers: list[int]) -> PluginHost:
    """A host whose backend "scripted" gives these answers, token by token, one after the other."""
    from support import scripted as plugin

    host = PluginHost(extra=[plugin])
    host.backend("scripted").answers.extend(answers)  # type: ignore[attr-defined]
    return host


class ScriptedBackend:
    def __init__(self) -> None:
        self.answers: list[list[int]] = []
        self.prompts: list[list[int]] = []
        self.encoded: list[int] = []
        """Patches of each step of the graph `vision`."""
        self.positions: list[np.ndarray | None] = []

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def claims(self, node: Node, target: Target) -> Accept:
        return Accept()

    def accepts(self, storage: Storage, target: Target) -> bool:
        return False

    def numerics(self, target: Target) -> Numerics:
        return Numerics(OpNumerics("float32", "float32"))

    def bill(self, lowerings: Mapping[str, Lowering], target: Target, limits: Limits) -> MemoryReport:
        return MemoryReport(1, 1)

    def compile(
        self, lowerings: Mapping[str, Lowering], weights: WeightSource, target: Target, limits: Limits
    ) -> ScriptedExecutable:
        vision = lowerings.get("vision")
        width = 0 if vision is None else vision.graph.output("features").type.dims[1]
        return ScriptedExecutable(self, PagedContents.of(lowerings, limits), int(width))


class ScriptedExecutable:
    ahead = 0

    def __init__(self, backend: ScriptedBackend, contents: PagedContents, width: int) -> None:
        self.cache, self.admits = contents.cache, contents.admits
        self._backend = backend
        self._width = width  # of features
        self._scripts: dict[int, list[int]] = {}  # what is left to say, by seat
        self._said: dict[int, tuple[int, int]] = {}  # by seat, the last token and its place
        self._rows = np.zeros(contents.cache.pages * contents.cache.page_size, np.int32)

    def submit(self, step: Step) -> Done:
        if step.graph == "vision":
            self._backend.encoded.append(len(step.extra["patches"]))
            return Done(StepResult(taps={"features": np.zeros((len(step.extra["pairs"]), self._width), np.float32)}))
        self._backend.positions.append(step.extra.get("positions"))
        self._rows[step.write] = step.ids
        logits = np.zeros((len(step.rows), ROWS), np.float32)
        for row, token in enumerate(step.rows.tolist()):
            b = int(step.sequence[token])
            seat, index = int(step.seats[b]), int(step.index[token])
            if step.new[b] > 1 or self._said.get(seat) != (int(step.ids[token]), index):  # a prompt
                self._scripts[seat] = list(self._backend.answers.pop(0))
                self._backend.prompts.append(self._rows[step.context[step.context_sequence == b]].tolist())
            said = self._scripts[seat].pop(0)
            self._said[seat] = said, index + 1
            logits[row, said] = 50
        return Done(StepResult(logits=logits))

    def copy(self, source: int, destination: int, length: int) -> None:
        size = self.cache.page_size
        self._rows[destination * size :][:length] = self._rows[source * size :][:length]

    def memory(self) -> MemoryReport:
        return MemoryReport(1, 1)

    def close(self) -> None:
        pass


def write_chat_checkpoint(folder: Path, template: str | None, **fields: object) -> Path:
    """A dense model of one layer and no use, with ERNIE's tokenizer files; `fields` go into its config."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ernie_tokenizer(folder, template)
    (folder / "config.json").write_text(json.dumps(CONFIG | fields))
    heads, groups, size, hidden, width = 2, 1, 4, 8, 24
    shapes = {
        "embed_tokens": (ROWS, hidden),
        "norm": (hidden,),
        "layers.0.input_layernorm": (hidden,),
        "layers.0.post_attention_layernorm": (hidden,),
        "layers.0.self_attn.q_proj": (heads * size, hidden),
        "layers.0.self_attn.k_proj": (groups * size, hidden),
        "layers.0.self_attn.v_proj": (groups * size, hidden),
        "layers.0.self_attn.o_proj": (hidden, heads * size),
        "layers.0.mlp.gate_proj": (width, hidden),
        "layers.0.mlp.up_proj": (width, hidden),
        "layers.0.mlp.down_proj": (hidden, width),
    }
    rng = np.random.default_rng(0)
    save_file(
        {f"model.{name}.weight": rng.standard_normal(shape, np.float32) for name, shape in shapes.items()},
        folder / "model.safetensors",
    )
    return folder
