"""How a checkpoint wants to be sampled: its generation_config.json."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from ernie_rt.display import shown
from ernie_rt.errors import ConfigError, OptionError
from ernie_rt.files import member, read_json
from ernie_rt.generation.options import GenerateOptions, check_options
from ernie_rt.modeling.config import ModelConfig
from ernie_rt.sampling.params import check_ids

NAME: Final = "generation_config.json"
SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p")
"""What `do_sample: false` turns off."""
OTHERS: Final = ("repetition_penalty", "presence_penalty", "frequency_penalty", "max_new_tokens")
WHOLE: Final = ("top_k", "max_new_tokens", "eos_token_id")
MEANINGLESS: Final = frozenset(
    {"do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "transformers_version", "_from_model_config",
     "use_cache", "max_length", "return_dict_in_generate", "output_attentions", "output_hidden_states"}
)  # fmt: skip
"""Fields that are read otherwise, or that change no token."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a generation is to take where its caller says nothing; `ignored` are fields that ernie-rt does not know."""

    options: GenerateOptions = field(default_factory=GenerateOptions)
    ignored: tuple[str, ...] = ()

    def settle(
        self, options: GenerateOptions, *, room: int, new_tokens: int, stop_ids: Iterable[int] = ()
    ) -> GenerateOptions:
        """The given options, then these, then `new_tokens` as far as there is `room`.

        `stop_ids` end an answer as the end-of-sequence tokens do.
        """
        settled = GenerateOptions(**self.options)
        settled["max_new_tokens"] = max(1, min(room, settled.get("max_new_tokens", new_tokens)))
        ends = () if options.get("ignore_eos") else (*settled.get("stop_ids", ()), *stop_ids)
        settled.update(options)
        settled["stop_ids"] = (*check_ids("stop_ids", options.get("stop_ids", ())), *ends)
        return settled


def read_defaults(folder: Path, config: ModelConfig) -> Defaults:
    """Read generation_config.json; no defaults when there is none. ConfigError for an impossible value.

    Its end-of-sequence tokens join those of config.json. `do_sample: false` makes it greedy, as in transformers; a
    file that gives a temperature and no `do_sample` is taken to mean it. A token of -1 is none.
    """
    if not os.path.lexists(folder / NAME):
        return Defaults()
    path = member(folder, NAME)
    fields = {name: _plain(name, value) for name, value in read_json(path).items() if value is not None}
    sampling = fields.get("do_sample")
    if sampling is not None and not isinstance(sampling, bool):
        raise ConfigError("do_sample is neither true nor false", where=str(path), found=shown(sampling))
    wanted = OTHERS if sampling is False else (*SAMPLING, *OTHERS)
    options: dict[str, Any] = {name: fields[name] for name in wanted if name in fields}
    if sampling:
        options.setdefault("temperature", 1.0)
    elif "temperature" not in options:
        options = {name: value for name, value in options.items() if name not in SAMPLING}
    eos = fields.get("eos_token_id", [])
    options["stop_ids"] = [_plain("eos_token_id", id) for id in (eos if isinstance(eos, list) else [eos]) if id != -1]
    try:
        check_options(config.eos_token_id, config.vocab_size, **options)
    except OptionError as error:
        raise ConfigError(
            error.what.replace("stop_ids", "eos_token_id"),  # as the file calls it
            where=str(path),
            expected=error.expected,
            found=error.found,
            hint="Correct the file, or remove it",
        ) from None
    beyond = [id for id in options["stop_ids"] if id >= config.vocab_size]
    if beyond:
        raise ConfigError(
            "eos_token_id is outside the vocabulary",
            where=str(path),
            expected=f"0 to {config.vocab_size - 1}",
            found=beyond[0],
        )
    options["stop_ids"] = [id for id in options["stop_ids"] if id not in config.eos_token_id]
    if not options["stop_ids"]:
        del options["stop_ids"]
    known = {*SAMPLING, *OTHERS, *MEANINGLESS}
    return Defaults(cast(GenerateOptions, options), tuple(sorted(fields.keys() - known)))


def _plain(name: str, value: Any) -> Any:
    """A value as `check_options` takes it: 50.0 is 50, and where it means all, -1 is 0."""
    if name in WHOLE and isinstance(value, float) and value.is_integer():
        value = int(value)
    return 0 if name == "top_k" and value == -1 else value
