"""What onnxruntime-genai needs beside an exported graph: genai_config.json and the tokenizer's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ernie_rt.generation.defaults import Defaults
from ernie_rt.location import Located
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.text.added_files import DECODER, TOKENIZER_CONFIG, read_optional
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.untrusted_json import usable
from ernie_rt.writing import write_atomic
from ernie_rt_onnx.tokenizer_json import UNKNOWN, tokenizer_json

INPUT_IDS: Final = "input_ids"
"""int64 [batch, sequence]."""
ATTENTION_MASK: Final = "attention_mask"
"""int64 [batch, past + sequence]: 1 where there is a token, 0 for padding."""
LOGITS: Final = "logits"
"""[batch, sequence, V]."""
PAST_KEY: Final = "past_key_values.%d.key"
PAST_VALUE: Final = "past_key_values.%d.value"
PRESENT_KEY: Final = "present.%d.key"
PRESENT_VALUE: Final = "present.%d.value"
"""[batch, K, past, D] and [batch, K, past + sequence, D], by layer."""

FAMILY: Final = "ernie4_5"
"""What genai calls these models. It has no "ernie4_5_moe", and needs none: experts are a matter of the graph alone."""
MAX_LENGTH: Final = 4096
"""Prompt and answer together where the caller says nothing: genai allocates the cache for all of it at once."""
SEARCH: Final[Mapping[str, object]] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
"""The sampling options that genai has, and what leaves them out; its own default of top_k would be 50."""
KNOWN: Final = frozenset({*SEARCH, "stop_ids"})
"""What a checkpoint may ask for and is passed on."""


def genai_config(
    config: ModelConfig, defaults: Defaults, filename: str, *, stop_ids: Iterable[int] = ()
) -> dict[str, Any]:
    """The contents of genai_config.json for the graph in `filename`.

    `stop_ids` end an answer beside the end-of-sequence tokens of the config and of the defaults.
    """
    options = defaults.options
    eos = tuple(dict.fromkeys((*config.eos_token_id, *options.get("stop_ids", ()), *stop_ids)))
    pad = config.pad_token_id if config.pad_token_id is not None else next(iter(eos), 0)
    model: dict[str, Any] = {
        "type": FAMILY,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "context_length": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
        "decoder": {
            "filename": filename,
            "session_options": {"provider_options": []},
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "head_size": config.head_dim,
            "inputs": {
                "input_ids": INPUT_IDS,
                "attention_mask": ATTENTION_MASK,
                "past_key_names": PAST_KEY,
                "past_value_names": PAST_VALUE,
            },
            "outputs": {
                "logits": LOGITS,
                "present_key_names": PRESENT_KEY,
                "present_value_names": PRESENT_VALUE,
            },
        },
    }
    if config.bos_token_id is not None:
        model["bos_token_id"] = config.bos_token_id
    search = {name: options.get(name, neutral) for name, neutral in SEARCH.items()}
    search |= {
        "do_sample": options.get("temperature", 0) > 0,
        "max_length": min(MAX_LENGTH, config.max_position_embeddings),
        "num_beams": 1,
        "past_present_share_buffer": False,  # its length would no longer tell how many tokens a mask is of
    }
    return {"model": model, "search": search}


def write_genai_files(located: Located, out: Path, filename: str) -> tuple[str, ...]:
    """Write genai_config.json, tokenizer.json and tokenizer_config.json into the folder `out`, beside the graph.

    The result names what the checkpoint's generation_config.json asks for and genai cannot do. Raises TokenizerError
    for a tokenizer that no tokenizer.json can stand for, and TemplateError.

    What genai reads of these files differs in three ways from what this project does. Special tokens are found in
    contents too: who serves strangers takes them out first. Text ends at a null character. And U+2581, the character
    that spells a space in pieces, is not merged as a space is.
    """
    config, template = located.config, located.template
    stop_ids = () if template is None else template.stop_ids(located.tokenizer)
    files = {
        "genai_config.json": genai_config(config, located.defaults, filename, stop_ids=stop_ids),
        "tokenizer.json": tokenizer_json(located),
        TOKENIZER_CONFIG: _tokenizer_config(located),
    }
    for name, contents in files.items():
        with write_atomic(out / name) as file:
            file.write(
                json.dumps(contents, ensure_ascii=False, indent=None if name == "tokenizer.json" else 2).encode()
            )
    return tuple(sorted(located.defaults.options.keys() - KNOWN))


def _tokenizer_config(located: Located) -> dict[str, object]:
    """The checkpoint's own settings, without its code, and changed where they would mislead a reader.

    Its added tokens are those of tokenizer.json.
    """
    config, reserved = located.config, located.tokenizer.reserved
    assert located.folder is not None
    settings: dict[str, object] = usable(read_optional(located.folder, TOKENIZER_CONFIG))
    for name in ("auto_map", "chat_template", DECODER):
        settings.pop(name, None)
    names = {id: name for name, id in reserved.items()}
    tokens = {
        "bos_token": names.get(-1 if config.bos_token_id is None else config.bos_token_id),
        "eos_token": names.get(next(iter(config.eos_token_id), -1)),
        "pad_token": names.get(-1 if config.pad_token_id is None else config.pad_token_id),
        "unk_token": UNKNOWN if UNKNOWN in reserved else None,
    }
    settings |= {name: token for name, token in tokens.items() if token is not None}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",  # what is said in tokenizer.json and nothing else
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_position_embeddings,
    }
    if located.template is not None:
        settings["chat_template"] = portable_template(located.template)
    return settings


def portable_template(template: ChatTemplate) -> str:
    """The template's text for engines that trim no white space around tags, and know no tokens but bos and eos.

    Templates are written for Jinja with `trim_blocks` and `lstrip_blocks`. What these take away is taken away here, so
    that it is the same with them and without.
    """
    source = re.sub(r"(?m)^[ \t]+(?=\{[%#](?!\+))", "", template.source)
    # A newline after a tag goes. A second one would go next time, unless it is written by an expression.
    source = re.sub(
        r"(?<![-+])([%#]\})\n(\n(?!\s*\{[{%#]-))?", lambda tag: tag[1] + ('{{ "\\n" }}' if tag[2] else ""), source
    )
    words = set(re.findall(r"\w+", source))
    used = {name: json.dumps(token, ensure_ascii=False) for name, token in template.tokens.items() if name in words}
    return "".join(f"{{% set {name} = {token} %}}" for name, token in used.items()) + source
