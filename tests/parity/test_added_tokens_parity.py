"""Added tokens that transformers gave a tokenizer and saved: the same ids, the same text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ernie_rt.modeling.config import parse_config
from ernie_rt.text.tokenizer import Detokenizer, Tokenizer
from support.toy_tokenizers import NAMES, SPACE, Json, entry, stored_json, toy_model

transformers = pytest.importorskip("transformers")
LETTERS = "abcx新词12[]_ \té"
SPELLED, FRONT = (
    {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    {"type": "Prepend", "prepend": SPACE},
)
METASPACE = {"type": "Metaspace", "replacement": SPACE, "split": False}
STEPS: dict[str, Json] = {
    "none": {"normalizer": SPELLED},
    "every run": {"normalizer": {"type": "Sequence", "normalizers": [FRONT, SPELLED]}},
    **{scheme: {"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": scheme}}
       for scheme in ("never", "first", "always")},
}  # fmt: skip
SHOWN: list[Json] = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
STRIP: Json = {"type": "Strip", "content": " ", "start": 1, "stop": 0}

contents = st.text(LETTERS, min_size=1, max_size=4).filter(lambda text: text.strip() not in ("", "1"))
tokens = st.tuples(contents, st.booleans(), st.booleans(), st.booleans(), st.booleans())
texts = st.lists(st.text(LETTERS + "\n\u200d\u0301²Ⓐ<s", max_size=3) | st.integers(0, 5), max_size=9)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    added=st.lists(tokens, max_size=6, unique_by=lambda token: token[0]),
    steps=st.sampled_from([*STEPS]),
    drawn=st.lists(texts, min_size=5, max_size=20),
    beside=st.booleans(),
)
@example(
    added=[("新词", True, False, False, False), ("新", False, True, True, False), ("a b", True, False, False, True)],
    steps="every run",
    drawn=[["1", 0, "2 ", 1, " ", 2, "x"], [0, 1, 2], ["a 新", "词b"], [" ", 2, "_", 2]],
    beside=True,
)
def test_what_transformers_saved(
    tmp_path: Path,
    added: list[tuple[str, bool, bool, bool, bool]],
    steps: str,
    drawn: list[list[str | int]],
    beside: bool,
) -> None:
    strip = [] if steps in ("none", "never") else [STRIP]
    data = (
        stored_json({NAMES.index("1") + 259: entry("1")})
        | STEPS[steps]
        | {"decoder": {"type": "Sequence", "decoders": [*SHOWN, *strip]}}
    )
    data |= {"version": "1.0", "truncation": None, "padding": None, "post_processor": None}
    data["model"] |= {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    data["model"] |= {"fuse_unk": False, "ignore_merges": False}
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "config.json").write_text('{"model_type": "ernie4_5"}')
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    theirs: Any = transformers.AutoTokenizer.from_pretrained(tmp_path, model_max_length=2048)
    for content, normalized, lstrip, rstrip, single in added:
        flags = {"normalized": normalized, "lstrip": lstrip, "rstrip": rstrip, "single_word": single}
        theirs.add_tokens([transformers.AddedToken(content, **flags)])
    theirs.save_pretrained(tmp_path)
    if beside:
        (tmp_path / "tokenizer.model").write_bytes(toy_model())
    config = parse_config({"model_type": "ernie4_5", "vocab_size": len(theirs), "eos_token_id": 2}, "config.json")
    ours = Tokenizer.load(tmp_path, config)
    assert ours.vocab_size == len(theirs)
    for parts in drawn:
        text = "".join(added[part][0] if isinstance(part, int) and part < len(added) else str(part) for part in parts)
        if "<s>" in text or "</s>" in text:
            continue
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids, text
        stream = Detokenizer(ours)
        said = theirs.decode(ids)
        assert ours.decode(ids) == "".join(map(stream.push, ids)) + stream.flush() == said
