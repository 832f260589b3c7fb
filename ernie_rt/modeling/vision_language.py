"""The configs of ERNIE 4.5's vision-language models.

Two spellings mean one config. Baidu's is flat (`ernie4_5_moe_vl`, a value for text and one for vision in a list);
transformers' is nested (`ernie4_5_vl_moe`, with a `text_config`). What is absent means something else in each: no
shared experts in the first, two in the second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ernie_rt.files import member, read_json
from ernie_rt.modeling.config import MAX_EXPERTS, MAX_PARAMETERS, ModelConfig, fields_of, parse_text
from ernie_rt.modeling.fields import Fields
from ernie_rt.modeling.rotary import rotary_in
from ernie_rt.modeling.spellings import DEFAULTS, MAX_VOCAB

SECTIONS: Final = (22, 22, 20)
"""What rotary frequencies each of height, width and time turns, where a config does not say."""
IMAGE: Final = 100295
"""The placeholder of a part of a picture, and of a video in Baidu's own configs."""
MARKERS: Final[Mapping[str, int]] = {
    "image_start_token_id": 101304,
    "image_end_token_id": 101305,
    "video_start_token_id": 101306,
    "video_end_token_id": 101307,
}

FLAT: Final[Mapping[str, object]] = {
    **DEFAULTS["ernie4_5_moe"],
    "moe_num_experts": [64, 64],
    "moe_intermediate_size": [1536, 512],
    "moe_num_shared_experts": 0,
    "im_patch_id": IMAGE,
    **MARKERS,
}
NESTED: Final[Mapping[str, object]] = {
    "image_token_id": IMAGE,
    "video_token_id": 103367,
    "tie_word_embeddings": True,
    **MARKERS,
}
NESTED_TEXT: Final[Mapping[str, object]] = {**DEFAULTS["ernie4_5_moe"], "moe_intermediate_size": [1536, 512]}
TOWER: Final[Mapping[str, object]] = {
    "depth": 32,
    "hidden_size": 1280,
    "num_heads": 16,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_merge_size": 2,
    "rms_norm_eps": 1e-6,
}
NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "rope_3d": (None, True),
    "use_temporal_conv": (None, True),
    "mm_vocab_size": (None, 0),
    "modality_detach": (None, False),
    "moe_num_attn_experts": (None, False),
    "moe_dense_experts_token_type_id": (None, 3),
}
TOWER_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "hidden_act": ("quick_gelu",),
    "in_channels": (3,),
    "in_chans": (None, 3),
    "patch_size": (14,),
    "spatial_merge_size": (2,),
    "temporal_merge_size": (2,),
}
PIXELS: Final = (4 * 28 * 28, 6177 * 28 * 28)
"""Limits of a picture that nobody else sets: those that Baidu's code hands its processor."""
PASSED_OVER: Final = 6144 * 28 * 28
"""What Baidu's files say is the most, which its code passes over."""
PREPROCESSOR_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "do_convert_rgb": (None, True),
    "do_normalize": (None, True),
    "do_rescale": (None, True),
    "do_resize": (None, True),
    "do_center_crop": (None, False),
    "image_mean": (None, [0.48145466, 0.4578275, 0.40821073]),
    "image_std": (None, [0.26862954, 0.26130258, 0.27577711]),
    "rescale_factor": (None, 1 / 255),
    "resample": (None, 3),
    "patch_size": (None, 14),
    "merge_size": (None, 2),
    "temporal_patch_size": (None, 1, 2),
}


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower, and how its patches become tokens."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    spatial_merge_size: int
    temporal_merge_size: int
    layer_norm_eps: float

    @property
    def parameters(self) -> int:
        """Of the blocks and the patches' projection, biases and norms aside."""
        block = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.depth * block + self.hidden_size * self.in_channels * self.patch_size**2


@dataclass(frozen=True, slots=True)
class VisionLanguageConfig:
    """What a vision-language config says beside that of the text, checked and with every default resolved.

    `mrope_section` are the numbers of frequencies that height, width and time turn. Where the text has experts, vision
    has as many of its own, `moe_intermediate_size` wide; they serve `image_token_id` and the ids beyond it.
    """

    tower: VisionConfig
    moe_intermediate_size: int
    mrope_section: tuple[int, int, int]
    image_token_id: int
    video_token_id: int
    image_start_token_id: int
    image_end_token_id: int
    video_start_token_id: int
    video_end_token_id: int
    moe_capacity: tuple[int, ...] | None
    """Of training; no token is dropped at inference."""


@dataclass(frozen=True, slots=True)
class PreprocessorConfig:
    """How large a picture may be, in pixels after it was brought to whole patches."""

    min_pixels: int = PIXELS[0]
    max_pixels: int = PIXELS[1]


def parse_vision_language(fields: Mapping[str, object], where: str) -> ModelConfig:
    """Check `fields` in either spelling and resolve defaults; `where` names their source in a ConfigError.

    The experts of the config are the text's, and `vision` says what there is beside the text.
    """
    return _nested(fields, where) if fields.get("text_config") is not None else _flat(fields, where)


def read_preprocessor(folder: Path) -> PreprocessorConfig:
    """Read `folder`/preprocessor_config.json, where there is one; ConfigError where pictures are prepared in another
    way than ERNIE's.

    transformers writes the limits as `size`, Baidu beside a `size` that means nothing.
    """
    name = "preprocessor_config.json"
    if not os.path.lexists(folder / name):
        return PreprocessorConfig()
    fields = dict(read_json(member(folder, name)))
    size = fields.get("size")
    for limit, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if isinstance(size, Mapping) and edge in size:
            fields.setdefault(limit, size[edge])
    read = Fields(fields, name, dict(zip(("min_pixels", "max_pixels"), PIXELS, strict=True)))
    read.refuse_unless(PREPROCESSOR_NEUTRAL)
    smallest = read.integer("min_pixels", 28 * 28, 1 << 26)
    largest = read.integer("max_pixels", smallest, 1 << 26)
    return PreprocessorConfig(smallest, PIXELS[1] if largest == PASSED_OVER else largest)


def _flat(fields: Mapping[str, object], where: str) -> ModelConfig:
    read = fields_of(fields, where, FLAT)
    read.refuse_unless(NEUTRAL)
    tower = _tower(read, {"spatial_merge_size": "spatial_conv_size", "temporal_merge_size": "temporal_conv_size"})
    width = tower.hidden_size
    if not read.absent("pixel_hidden_size") and read.integer("pixel_hidden_size", 1, 8192) != width:
        raise read.refusal(
            "pixel_hidden_size",
            "differs from the tower's width",
            f"hidden_size of vision_config = {width}",
            read.value("pixel_hidden_size"),
        )
    text = parse_text(read, "ernie4_5_moe", sections=True)
    last = text.num_hidden_layers - 1
    for name, low, high in (("moe_layer_start_index", 0, 1023), ("moe_layer_end_index", -1, 1 << 16)):
        first, second = (0, 0) if read.absent(name) else read.pair(name, low, high)
        if first != second and min(first % (1 << 17), last) != min(second % (1 << 17), last):  # -1 is the last one
            expected = f"the same of the layers for vision as for text, up to num_hidden_layers = {last + 1}"
            raise read.refusal(name, "not supported", expected, read.value(name))
    config = _config(read, read, text, tower, "im_patch_id", "im_patch_id")
    frequencies = read.value("freq_allocation")
    assert config.vision is not None
    time = config.vision.mrope_section[2]
    if frequencies is not None and read.integer("freq_allocation", 0, 1024) != time:
        raise read.refusal("freq_allocation", "not supported", str(time), frequencies)
    return config


def _nested(fields: Mapping[str, object], where: str) -> ModelConfig:
    top = Fields(fields, where, NESTED)
    inner = top.section("text_config")
    tied = top.boolean("tie_word_embeddings")  # the text's own is not looked at, as in transformers
    kinds = inner.get("mlp_layer_types")
    read = fields_of({**inner, "tie_word_embeddings": tied}, f"{where}: text_config", NESTED_TEXT)
    if kinds is not None:
        start, end = _sparse(read, kinds)
        read = fields_of(
            {**inner, "tie_word_embeddings": tied, "moe_layer_start_index": start, "moe_layer_end_index": end},
            read.where,
            NESTED_TEXT,
        )
    text = parse_text(read, "ernie4_5_moe", sections=True)
    return _config(top, read, text, _tower(top, {}), "image_token_id", "video_token_id")


def _sparse(read: Fields, kinds: object) -> tuple[int, int]:
    """The first and last layer with experts, of a list that says it of each."""
    names = kinds if isinstance(kinds, list) else []
    sparse = [i for i, kind in enumerate(names) if isinstance(kind, str) and kind == "sparse"]
    if not sparse or sparse != [*range(sparse[0], sparse[-1] + 1)] or len(names) > 1024:
        raise read.refusal("mlp_layer_types", "not supported", "dense layers around one run of sparse ones", kinds)
    return sparse[0], sparse[-1]


def _tower(read: Fields, outside: Mapping[str, str]) -> VisionConfig:
    """The section `vision_config`; `outside` are fields that a flat config has beside it, and their names there."""
    where = f"{read.where}: vision_config"
    tower = Fields(
        read.section("vision_config"), where, TOWER, {"embed_dim": "hidden_size", "spatial_patch_size": "patch_size"}
    )
    tower.refuse_unless(TOWER_NEUTRAL)
    for name, other in outside.items():
        read.refuse_unless({other: (None, *TOWER_NEUTRAL[name])})
    rope = tower.value("rope_parameters")
    if rope is not None:
        inner = Fields(rope if isinstance(rope, Mapping) else {"rope_type": rope}, f"{where}: rope_parameters")
        inner.refuse_unless({"rope_type": ("axial", "default"), "rope_theta": (10000, None)})
    width = tower.integer("hidden_size", 1, 8192)
    if tower.absent("intermediate_size"):
        ratio = 4.0 if tower.absent("mlp_ratio") else tower.number("mlp_ratio", 1, 64)
        inside = int(width * ratio)
    else:
        inside = tower.integer("intermediate_size", 1, 1 << 16)
    heads = tower.integer("num_heads", 1, 256)
    if width % (4 * heads):
        raise tower.refusal(
            "num_heads",
            "impossible value",
            f"a divisor of hidden_size / 4, {width} / 4: heads turn in two halves",
            heads,
        )
    return VisionConfig(
        depth=tower.integer("depth", 1, 256),
        hidden_size=width,
        intermediate_size=inside,
        num_heads=heads,
        in_channels=3,
        patch_size=14,
        spatial_merge_size=2,
        temporal_merge_size=2,
        layer_norm_eps=tower.number("rms_norm_eps", 1e-20, 0.5),
    )


def _config(top: Fields, read: Fields, text: ModelConfig, tower: VisionConfig, image: str, video: str) -> ModelConfig:
    """Both spellings from here on: tokens, by these names, are fields of `top`, the rest of `read`."""
    experts = read.pair("moe_num_experts", 1, 1024)
    if experts[0] != experts[1]:
        raise read.refusal("moe_num_experts", "not supported", "as many for vision as for text", list(experts))
    _, width = read.pair("moe_intermediate_size", 1, 1 << 16)
    sections = rotary_in(read, sections=True).sections or SECTIONS
    if sum(sections) * 2 != text.head_dim:
        raise read.refusal(
            "mrope_section, head_dim (hidden_size / num_attention_heads)",
            "impossible value",
            f"a sum of head_dim / 2 = {text.head_dim // 2}",
            sum(sections),
        )
    ids = {name: top.integer(name, 0, MAX_VOCAB - 1) for name in (image, video, *MARKERS)}
    apart = {ids[name] for name in (image, *MARKERS)}  # a video may have the picture's
    if max(ids.values()) >= text.vocab_size or len(apart) <= len(MARKERS):
        raise top.refusal(
            ", ".join((*ids, "vocab_size")),
            "impossible value",
            f"different ids below {text.vocab_size}",
            [*ids.values()],
        )
    layers = text.num_hidden_layers
    pool = 3 * text.hidden_size * width * experts[1]
    if layers * pool + tower.parameters > MAX_PARAMETERS or layers * sum(experts) > MAX_EXPERTS:
        names = "num_hidden_layers, hidden_size, moe_intermediate_size, moe_num_experts, vision_config"
        expected = f"at most {MAX_PARAMETERS} parameters, and {MAX_EXPERTS} experts in all layers"
        raise read.refusal(names, "the model is impossibly large", expected, layers * max(pool, sum(experts)))
    vision = VisionLanguageConfig(
        tower=tower,
        moe_intermediate_size=width,
        mrope_section=sections,
        image_token_id=ids[image],
        video_token_id=ids[video],
        moe_capacity=None if read.absent("moe_capacity") else read.integers("moe_capacity", 0, 1 << 20),
        image_start_token_id=ids["image_start_token_id"],
        image_end_token_id=ids["image_end_token_id"],
        video_start_token_id=ids["video_start_token_id"],
        video_end_token_id=ids["video_end_token_id"],
    )
    return replace(text, vision=vision)
