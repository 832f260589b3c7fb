from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from ernie_rt.errors import BackendError, CheckpointError, GraphError
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.storage.rope import RopeTable, rope_table
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.source import CheckpointSource, copy
from support.checkpoints import SPECS, write_checkpoint, write_paddle_twin, write_published_twin

Loaded = tuple[Path, dict[str, np.ndarray[Any, Any]]]
NAMES = ("dense-tied", "dense-bias", "moe-bias", "moe-sharded", "moe-leading-dense", "moe-interval")


@pytest.fixture(scope="module", params=NAMES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A checkpoint that transformers wrote, and its graph weights computed from the model transformers reads of it."""
    from transformers import AutoModelForCausalLM

    folder = write_checkpoint(SPECS[request.param], tmp_path_factory.mktemp("source") / request.param, seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return folder, expected_weights({name: value.detach() for name, value in model.state_dict().items()})


def expected_weights(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """Graph weights from the state of a transformers model, where experts are packed."""
    found = {"embed.weight": state["model.embed_tokens.weight"], "head.norm": state["model.norm.weight"]}
    for name in ("weight", "bias"):
        if f"lm_head.{name}" in state:
            found[f"head.{name}"] = state[f"lm_head.{name}"]
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("model.layers."))
    for i in range(layers):
        layer = {
            k.removeprefix(f"model.layers.{i}."): v for k, v in state.items() if k.startswith(f"model.layers.{i}.")
        }
        to = f"layers.{i}."
        found[f"{to}attention.norm"] = layer["input_layernorm.weight"]
        found[f"{to}mlp.norm"] = layer["post_attention_layernorm.weight"]
        for kind, suffix in (("weight", ""), ("bias", "_bias")):
            if f"self_attn.q_proj.{kind}" in layer:
                qkv = [layer[f"self_attn.{x}_proj.{kind}"] for x in "qkv"]
                found[f"{to}attention.qkv{suffix}"] = torch.cat(qkv)
                found[f"{to}attention.out{suffix}"] = layer[f"self_attn.o_proj.{kind}"]
            for stem, target in (("mlp.", "mlp."), ("mlp.shared_experts.", "mlp.shared.")):
                if f"{stem}gate_proj.{kind}" in layer:
                    pair = (layer[f"{stem}gate_proj.{kind}"], layer[f"{stem}up_proj.{kind}"])
                    found[f"{to}{target}gate_up{suffix}"] = torch.stack(pair, dim=1)
                    found[f"{to}{target}down{suffix}"] = layer[f"{stem}down_proj.{kind}"]
        if "mlp.gate.weight" in layer:
            found[f"{to}mlp.gate"] = layer["mlp.gate.weight"]
            found[f"{to}mlp.correction_bias"] = layer["mlp.gate.moe_statics.e_score_correction_bias"][0]
            gate, up = layer["mlp.experts.gate_up_proj"].chunk(2, dim=1)
            found[f"{to}mlp.experts.gate_up"] = torch.stack((gate, up), dim=2)
            found[f"{to}mlp.experts.down"] = layer["mlp.experts.down_proj"]
    return {name: tensor.float().numpy() for name, tensor in found.items()}


def check(folder: Path, expected: dict[str, np.ndarray[Any, Any]]) -> list[tuple[str, str]]:
    """Fill every weight of the folder's graph, whole and by its first axis, and compare; return what is unused."""
    config = read_config(folder)
    graph = build_graph(config)
    weights = [weight for weight in graph.weights if isinstance(weight.storage, Plain)]
    tied = {"head.weight"} if config.tie_word_embeddings else set()
    assert {weight.name for weight in weights} == expected.keys() - tied
    source = CheckpointSource(Checkpoint.open(folder), config)
    for weight in weights:
        out = np.full(weight.type.shape(), np.nan, np.float32)
        source.fill(weight, "data", out)
        np.testing.assert_array_equal(out, expected[weight.name], err_msg=weight.name)
        last = out.shape[0] - 1
        row = np.full(out.shape[1:], np.nan, np.float32)
        source.fill(weight, "data", row, (last,))
        np.testing.assert_array_equal(row, out[last], err_msg=weight.name)
    source.close()
    return source.unused


def test_what_transformers_writes_is_what_transformers_reads(loaded: Loaded) -> None:
    folder, expected = loaded
    assert check(folder, expected) == []


def test_packed_experts(loaded: Loaded, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder, expected = loaded
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model.save_pretrained(tmp_path, save_original_format=False)
    assert check(tmp_path, expected) == []


def test_the_published_form_leaves_out_mtp_and_a_redundant_head(loaded: Loaded, tmp_path: Path) -> None:
    folder, expected = loaded
    unused = check(write_published_twin(folder, tmp_path / "twin"), expected)
    tied = read_config(folder).tie_word_embeddings
    assert {name.split(".")[1].split("_")[0] for name, _ in unused} == ({"mtp", "weight"} if tied else {"mtp"})


@pytest.mark.parametrize("bfloat16_as", ["BF16", "U16"])
def test_the_paddle_form(loaded: Loaded, tmp_path: Path, bfloat16_as: Any) -> None:
    folder, expected = loaded
    assert check(write_paddle_twin(folder, tmp_path / "twin", bfloat16_as=bfloat16_as), expected) == []


def with_head(folder: Path, out: Path, head: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy that stores the head that is made of its embedding, and says nothing of it in its config."""
    shutil.copytree(folder, out)
    tensors = load_torch(out / "model.safetensors")
    prefix = "ernie" if "ernie.norm.weight" in tensors else "model"
    tensors["lm_head.weight"] = head(tensors[f"{prefix}.embed_tokens.weight"]).contiguous()
    save_torch(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def changed(embedding: torch.Tensor) -> torch.Tensor:
    """As a merged adapter leaves it."""
    noise = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(0))
    return (embedding.float() + 0.5 * embedding.float().std() * noise).to(embedding.dtype)


def damaged(embedding: torch.Tensor) -> torch.Tensor:
    """The same bytes, one of whose numbers is none."""
    embedding[0, 0] = float("nan")
    return embedding.clone()


def last_bit(embedding: torch.Tensor) -> torch.Tensor:
    head = embedding.clone()
    head.view(torch.int16)[-1, -1] ^= 1
    return head


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(SPECS["dense-tied"], tmp_path_factory.mktemp("tied") / "model", seed=1)


def opened(folder: Path) -> CheckpointSource:
    return CheckpointSource(Checkpoint.open(folder), read_config(folder))


@pytest.mark.parametrize("change", [changed, last_bit, lambda embedding: changed(embedding).float()])
def test_a_stored_head_outranks_the_config(tied: Path, tmp_path: Path, change: Callable[..., torch.Tensor]) -> None:
    from transformers import AutoModelForCausalLM

    folder = with_head(tied, tmp_path / "apart", change)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_output_embeddings().weight
    source = opened(folder)
    assert read_config(folder).tie_word_embeddings and not source.unused
    assert source.notes == ("the stored head is used: it differs from the embedding, to which config.json ties it",)
    graph = build_graph(read_config(folder), storages=source.storages)
    (head,) = (weight for weight in graph.weights if weight.name == "head.weight")
    out = np.empty(head.type.shape(), np.float32)
    source.fill(head, "data", out)
    np.testing.assert_array_equal(out, theirs.detach().numpy())


def test_a_stored_head_that_is_the_embedding_is_left_out(tied: Path, tmp_path: Path) -> None:
    whole = with_head(tied, tmp_path / "same", lambda embedding: embedding.clone())
    for folder in (whole, write_paddle_twin(whole, tmp_path / "paddle")):
        source = opened(folder)
        assert source.unused == [("lm_head.weight", "the same as the embedding, to which the model ties its head")]
        assert source.notes == () and "head.weight" not in source.storages
    assert "head.weight" not in opened(with_head(tied, tmp_path / "damaged", damaged)).storages
    upright = with_head(tmp_path / "paddle", tmp_path / "upright", lambda embedding: embedding.clone())
    assert "head.weight" not in opened(upright).storages
    other = write_paddle_twin(with_head(tied, tmp_path / "apart", last_bit), tmp_path / "paddle apart")
    assert "head.weight" in opened(other).storages


def test_a_tied_pair_of_which_the_head_is_stored(tied: Path, tmp_path: Path) -> None:
    """As `save_model` of safetensors leaves it: of two names of one tensor the first."""
    whole = load_torch(tied / "model.safetensors")["model.embed_tokens.weight"]
    alone = with_head(tied, tmp_path / "alone", lambda embedding: embedding.clone())
    paddle = write_paddle_twin(alone, tmp_path / "paddle")
    for folder, name in ((alone, "model.embed_tokens.weight"), (paddle, "ernie.embed_tokens.weight")):
        tensors = load_torch(folder / "model.safetensors")
        del tensors[name]
        save_torch(tensors, folder / "model.safetensors", metadata={name: "lm_head.weight"})
        source = opened(folder)
        (embedding,) = (w for w in build_graph(read_config(folder)).weights if w.name == "embed.weight")
        out = np.empty(embedding.type.shape(), np.float32)
        source.fill(embedding, "data", out)
        np.testing.assert_array_equal(out, whole.float().numpy())
        assert not source.unused and not source.notes and "head.weight" not in source.storages
    (alone / "model.safetensors").rename(alone / "model-00001-of-00002.safetensors")
    names = {"lm_head.weight": "model-00001-of-00002.safetensors"}
    names["model.embed_tokens.weight"] = "model-00002-of-00002.safetensors"
    (alone / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match="shards are missing"):
        opened(alone)


def test_a_stored_head_of_another_shape_is_an_error(tied: Path, tmp_path: Path) -> None:
    folder = with_head(tied, tmp_path / "resized", lambda embedding: embedding[:-1].clone())
    with pytest.raises(CheckpointError, match=r"wrong shape, 1: 'lm_head.weight \[255, 64\] instead of \[256, 64\]'"):
        opened(folder)


def test_the_heads_are_compared_up_to_the_first_difference(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []

    def equal(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
        compared.append(a.nbytes)
        return a.tobytes() == b.tobytes()

    monkeypatch.setattr("ernie_rt.weights.source.COMPARED_AT_ONCE", 1024)
    monkeypatch.setattr(np, "array_equal", equal)
    assert opened(with_head(tied, tmp_path / "same", lambda embedding: embedding.clone())).unused
    assert set(compared) == {1024} and sum(compared) == 256 * 64 * 2
    compared.clear()
    assert opened(with_head(tied, tmp_path / "apart", changed)).notes
    assert compared == [1024]


DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "plain": lambda out: out,
    "transposed": lambda out: np.empty(out.shape[::-1], out.dtype).T,
    "spread": lambda out: np.empty((*out.shape, 3), out.dtype)[..., 1],
    "backwards": lambda out: np.empty(out.shape, out.dtype)[::-1],
}


@pytest.mark.parametrize("to", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("transposed", [False, True])
def test_copy_converts_into_any_layout(to: Any, layout: str, transposed: bool) -> None:
    values = np.random.default_rng(0).standard_normal((300, 517)).astype(np.float32)
    for dtype in DTYPES:
        source = values.astype(dtype)
        source = np.asfortranarray(source) if transposed else source
        out = LAYOUTS[layout](np.empty(values.shape, to))
        copy(source, out)
        assert (out == source.astype(to)).all()


@pytest.fixture
def small(tmp_path: Path) -> CheckpointSource:
    folder = write_checkpoint(SPECS["moe"], tmp_path / "moe", seed=1)
    return CheckpointSource(Checkpoint.open(folder), read_config(folder))


def test_rope_tables_are_computed_for_any_number_of_rows(small: CheckpointSource) -> None:
    storage = RopeTable("sin", 500000.0)
    weight = Weight("rope.sin", TensorType("float32", ("P", 8)), storage)
    out = np.empty((40, 8), np.float16)
    small.fill(weight, "data", out)
    np.testing.assert_array_equal(out, rope_table(storage, 40, 8).astype(np.float16))
    row = np.empty(8, np.float32)
    small.fill(weight, "data", row, (39,))
    np.testing.assert_array_equal(row, rope_table(storage, 40, 8)[39])


def test_impossible_requests_are_named(small: CheckpointSource) -> None:
    down = Weight("layers.1.mlp.experts.down", TensorType("bfloat16", (16, 64, 32)), Plain("bfloat16"))
    good = np.empty((16, 64, 32), np.float32)
    small.fill(down, "data", good)
    with pytest.raises(BackendError, match="no part 'codes'"):
        small.fill(down, "codes", good)
    for shape, index in [((64, 32), ()), ((64, 32), (16,)), ((64, 32), (-1,)), ((16, 64, 33), ()), ((), (0, 0, 0, 0))]:
        with pytest.raises(BackendError, match="does not fit"):
            small.fill(down, "data", np.empty(shape, np.float32), index)
    with pytest.raises(GraphError, match="no weight 'x'"):
        small.fill(Weight("x", down.type, down.storage), "data", good)
    other = Weight(down.name, TensorType("bfloat16", (16, 64, 33)), down.storage)
    with pytest.raises(GraphError, match="another shape"):
        small.fill(other, "data", np.empty((16, 64, 33), np.float32))


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = write_checkpoint(SPECS["dense-tied"], tmp_path / "dense", seed=1)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"num_hidden_layers": 4, "vocab_size": 300}))
    with pytest.raises(CheckpointError, match=r"missing, 9: .*wrong shape, 1: 'model.embed_tokens.weight \[256, 64\]"):
        CheckpointSource(Checkpoint.open(folder), read_config(folder))


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from ernie_rt.graph.types import Plain
from ernie_rt.modeling.config import read_config
from ernie_rt.modeling.ernie45 import build_graph
from ernie_rt.weights.checkpoint import Checkpoint
from ernie_rt.weights.source import CheckpointSource

def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024

import threading
peak = 0
def watch():
    global peak
    while not done.wait(0.001):
        peak = max(peak, status("RssAnon"))

folder = Path(sys.argv[1])
config = read_config(folder)
weights = [w for w in build_graph(config).weights if isinstance(w.storage, Plain)]
source = CheckpointSource(Checkpoint.open(folder), config)
largest = max(weights, key=lambda w: w.type.elements())
out = np.zeros(largest.type.elements(), np.float32)
out[:] = 1
before, done = status("RssAnon"), threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
for weight in weights:
    source.fill(weight, "data", out[: weight.type.elements()].reshape(weight.type.shape()))
done.set()
watcher.join()
print(peak - before, status("RssFile"))
"""


@pytest.mark.parametrize("prefix", ["model.", "ernie."])
def test_filling_allocates_nothing_beside_the_buffer_and_releases_the_file(tmp_path: Path, prefix: str) -> None:
    """100 MB of bfloat16 into float32, plain and transposed: private memory stays, file pages go."""
    H, V, I = 512, 16384, 8192  # noqa: E741
    paddle = prefix == "ernie."
    linear = (lambda rows, columns: (columns, rows)) if paddle else (lambda rows, columns: (rows, columns))
    shapes = {"embed_tokens.weight": (V, H), "norm.weight": (H,)}
    for i in range(3):
        at = f"layers.{i}."
        shapes |= {f"{at}input_layernorm.weight": (H,), f"{at}post_attention_layernorm.weight": (H,)}
        shapes |= {f"{at}self_attn.o_proj.weight": linear(H, H), f"{at}mlp.down_proj.weight": linear(H, I)}
        if paddle:
            shapes |= {f"{at}self_attn.qkv_proj.weight": (H, 2 * H), f"{at}mlp.up_gate_proj.weight": (H, 2 * I)}
        else:
            shapes |= {f"{at}mlp.{x}_proj.weight": (I, H) for x in ("gate", "up")}
            shapes |= {f"{at}self_attn.{x}_proj.weight": (n, H) for x, n in (("q", H), ("k", H // 2), ("v", H // 2))}
    tensors = {prefix + name: np.ones(shape, ml_dtypes.bfloat16) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    fields = {"model_type": "ernie4_5", "hidden_size": H, "vocab_size": V, "intermediate_size": I, "head_dim": 64}
    fields |= {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert (tmp_path / "model.safetensors").stat().st_size > 95e6
    result = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], check=True, capture_output=True, text=True)
    grown, mapped = map(int, result.stdout.split())
    assert grown < 2 << 20
    assert mapped < 60 << 20
