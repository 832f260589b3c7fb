"""How one folder differs from the next: drawn from a seed, with nothing but the standard library."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

ROWS: Final = 4032
"""Rows of the embedding before anything is added: the demo's, whose tokenizer is the one that is varied."""
FEWER: Final = 3000
"""Rows after a cut: fewer than the tokenizer has tokens."""

TEXT: Final = ("ing", "7", "é", "###")
"""Added tokens that are never special here: pieces already, which no text may give then, or longer than another."""
TAGS: Final = ("<think>", "</think>")
"""What an answer may be marked with: no text gives these, and decoding shows them, whatever a file says."""
NAMES: Final = (*TEXT, *TAGS, "新词", "[CITE]", "[CITE]s", "<|user|>", "<|tool|>", "ernie", "::", "🙂🙂", "two words",
                "<0>", "Kilo", "##", "[INST]", "\n\n\n")  # fmt: skip

Drawn = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variation:
    """One way to save a model and its tokenizer. Every value can be written as JSON."""

    seed: int
    config: Drawn
    dtype: str
    mixed: bool
    """Norms are float32, as training in few bits leaves them."""
    head: str
    """`as configured`; where that is tied, `own`: another tensor than the embedding, as a merged adapter leaves it, or
    `copied`, an equal one, or `untied`: its own, and the config says so."""
    rows: str
    """What the embedding is resized to: `kept`, `added` (as many as there are tokens), `padded` (to a multiple of 64),
    `fewer` (than there are tokens)."""
    save: Drawn
    """Arguments of the model's save_pretrained."""
    bare: bool
    """The model is saved without its head, as a feature extractor."""
    saved_before: bool
    """The folder holds what an earlier save with another shard size left."""
    edits: tuple[str, ...]
    """What was done to the folder later, by name; see `model.EDITS`."""
    extras: tuple[str, ...]
    """Other files beside, as trainers and repositories have them."""
    generation: Drawn | None
    """Fields of the generation config; None: the file is removed."""
    tokenizer: str
    """A class of transformers that reads the demo's files; `trained metaspace`, `trained bytes`, `trained unigram`; or
    `none`."""
    tokenizer_options: Drawn
    added: tuple[Drawn, ...]
    """Arguments of AddedToken, for add_tokens."""
    specials: Drawn
    """For add_special_tokens; an object stands for an AddedToken."""
    used: bool
    """The tokenizer was asked to pad and to cut before it was saved."""
    resaved: bool
    """What was saved was read, and saved again in its place."""
    template: str
    """The demo's as it is (`kept`), with a default system prompt, or with `trim`; `none`; `chatml`; one with an end of
    turn and blanks behind it (`ending`); one that marks what is trained on (`generation`); two, by name (`named`)."""
    tokenizer_save: Drawn
    """Arguments of the tokenizer's save_pretrained."""
    tokenizer_model: str
    """`as saved`; `beside`: the file as it was before anything was added; `removed`, where tokenizer.json is left."""

    @property
    def is_moe(self) -> bool:
        return "moe_k" in self.config


def draw(seed: int, version: int) -> Variation:
    """The variation of a seed, among those that transformers of this major version can write."""
    rng = random.Random(f"{version}/{seed}")
    config = _config(rng, version)
    tied = config["tie_word_embeddings"]
    tokenizer, options = _tokenizer(rng, version)
    added = _added(rng) if tokenizer != "none" else ()
    specials = _specials(rng) if tokenizer != "none" else {}
    save: Drawn = {"max_shard_size": rng.choice(["1GB", "1GB", "300KB", "40KB"])}
    if version >= 5 and "moe_k" in config and rng.random() < 0.3:
        save["save_original_format"] = False
    if version < 5 and rng.random() < 0.03:
        save["safe_serialization"] = False
    elif rng.random() < 0.02:
        save["variant"] = "fp16"
    tokenizer_save: Drawn = {}
    if rng.random() < 0.25:
        tokenizer_save["save_jinja_files"] = False
    if version < 5 and tokenizer in ("AutoTokenizer", "LlamaTokenizerFast") and options.get("use_fast", True):
        tokenizer_save["legacy_format"] = rng.choice([None, None, True, False])
    return Variation(
        seed=seed,
        config=config,
        dtype=rng.choice(["bfloat16", "bfloat16", "float16", "float32"]),
        mixed=rng.random() < 0.15,
        head=rng.choice(["as configured"] * 5 + ["own", "untied", "copied"]) if tied else "as configured",
        rows=_rows(rng, bool(added or specials)),
        save=save,
        bare=rng.random() < 0.03,
        saved_before=rng.random() < 0.1,
        edits=_edits(rng),
        extras=tuple(rng.sample(["README.md", "training_args.bin", "optimizer.pt", "trainer_state.json",
                                 "checkpoint-500", ".gitattributes", "pytorch_model.bin"], rng.choice([0, 0, 1, 3]))),
        generation=_generation(rng),
        tokenizer=tokenizer,
        tokenizer_options=options,
        added=added,
        specials=specials,
        used=rng.random() < 0.2,
        resaved=rng.random() < 0.15,
        template=rng.choice(["kept", "kept", "kept", "none", "default system", "trim", "chatml", "ending", "generation",
                             "named"]),
        tokenizer_save=tokenizer_save,
        tokenizer_model=rng.choice(["as saved", "as saved", "beside", "removed"]),
    )  # fmt: skip


def _config(rng: random.Random, version: int) -> Drawn:
    heads, kv_heads, head_dim = rng.choice([(4, 2, 16), (4, 1, 8), (4, 4, 8), (2, 1, 32), (8, 2, 8), (3, 3, 16)])
    moe = rng.random() < 0.5
    config: Drawn = {
        "vocab_size": ROWS,
        "hidden_size": heads * head_dim if moe else rng.choice([32, 48, 64]),
        "intermediate_size": rng.choice([48, 96]),
        "num_hidden_layers": rng.choice([2, 3, 4]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": rng.choice([512, 2048, 131072]),
        "rms_norm_eps": rng.choice([1e-5, 1e-6]),
        "tie_word_embeddings": rng.random() < 0.6,
        # 4.57 gives biases to experts too.
        "use_bias": rng.random() < (0.04 if moe and version < 5 else 0.2),
    }
    if rng.random() < (0.3 if moe else 0.85):  # without it a dense model has heads of 128
        config["head_dim"] = head_dim
    theta = rng.choice([10000.0, 500000.0, 500000])
    if version >= 5:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    else:
        config["rope_theta"] = theta
    if rng.random() < 0.1:
        config["pad_token_id"] = rng.choice([None, 2])
    if rng.random() < 0.15:
        config["eos_token_id"] = rng.choice([[2], [2, 4]])
    if moe:
        layers = config["num_hidden_layers"]
        config |= {
            "moe_num_experts": rng.choice([4, 8]),
            "moe_k": rng.choice([1, 2, 3]),
            "moe_intermediate_size": rng.choice([16, 32]),
            "moe_num_shared_experts": rng.choice([0, 1, 2, 2]),
            **rng.choice([
                {"moe_layer_start_index": 0},
                {"moe_layer_start_index": 1},
                {"moe_layer_start_index": 1, "moe_layer_end_index": layers - 1},
                {"moe_layer_start_index": 0, "moe_layer_end_index": 0},
                {"moe_layer_start_index": 0, "moe_layer_interval": 2},
            ]),
        }  # fmt: skip
    if rng.random() < 0.02:
        config["hidden_act"] = "gelu"
    return config


def _tokenizer(rng: random.Random, version: int) -> tuple[str, Drawn]:
    kind = rng.choice(
        ["AutoTokenizer"] * 12 + ["LlamaTokenizer"] * 8 + ["LlamaTokenizerFast"] * 6
        + ["trained metaspace"] * 2 + ["trained bytes", "trained unigram", "none"]
    )  # fmt: skip
    options: Drawn = {}
    if "Tokenizer" in kind:
        if rng.random() < 0.3:
            options["legacy"] = rng.choice([True, False])
        if rng.random() < 0.3:
            options["add_prefix_space"] = rng.choice([True, False])
        if rng.random() < 0.2:
            options["model_max_length"] = rng.choice([2048, int(1e30)])
        if rng.random() < 0.1:
            options["padding_side"] = "right"
        if rng.random() < 0.05:
            options["split_special_tokens"] = True
        if version < 5 and kind == "AutoTokenizer" and rng.random() < 0.4:
            options["use_fast"] = False
    return kind, options


def _added(rng: random.Random) -> tuple[Drawn, ...]:
    if rng.random() < 0.35:
        return ()
    tokens = []
    for name in rng.sample(NAMES, rng.choice([1, 2, 3, 4])):
        token: Drawn = {"content": name}
        if name not in TEXT and rng.random() < 0.3:
            token["special"] = True
        for flag in ("lstrip", "rstrip", "single_word"):
            if rng.random() < 0.12:
                token[flag] = True
        if rng.random() < 0.2:
            token["normalized"] = rng.choice([True, False])
        tokens.append(token)
    if rng.random() < 0.05:
        tokens += [{"content": f"<loc_{n}>"} for n in range(100)]
    return tuple(tokens)


def _specials(rng: random.Random) -> Drawn:
    end: Drawn = {"content": "<|im_end|>", "special": True, rng.choice(["rstrip", "lstrip", "normalized"]): True}
    return rng.choice([{}] * 6 + [
        {"pad_token": "[PAD]"},
        {"pad_token": "<|pad|>", "eos_token": "<|im_end|>"},
        {"additional_special_tokens": ["<|a|>", "<|b|>"]},
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
        {"eos_token": end},
    ])  # fmt: skip


def _rows(rng: random.Random, grown: bool) -> str:
    if rng.random() < 0.04:
        return "fewer"
    if not grown:
        return rng.choice(["kept", "kept", "padded"])
    return rng.choice(["kept", "added", "added", "padded", "padded"])


def _edits(rng: random.Random) -> tuple[str, ...]:
    edits = ("torch_dtype", "infinite field", "total_size", "class prefix", "scaled rope", "byte order mark")
    return tuple(name for name in edits if rng.random() < (0.02 if name == "scaled rope" else 0.06))


def _generation(rng: random.Random) -> Drawn | None:
    sampled: Drawn = {"do_sample": True, "temperature": 0.8, "top_p": 0.8}
    return rng.choice([
        None,
        {},
        {},
        {"eos_token_id": [2, 4]},
        {"eos_token_id": 4},
        {"eos_token_id": None},
        sampled,
        sampled | {"top_k": 20, "repetition_penalty": 1.05, "eos_token_id": [2, 4]},
        {"do_sample": True, "min_p": 0.05},
        {"do_sample": False, "repetition_penalty": 1.1},
        {"max_new_tokens": 77},
        {"max_length": 512, "use_cache": True},
        {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0},
        {"num_beams": 1, "no_repeat_ngram_size": 3, "stop_strings": ["###"]},
    ])  # fmt: skip
