"""A model of lm-evaluation-harness: log-likelihoods and answers, many at once, by the engine.

Importing this module registers it with the harness, as `ernie-rt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from ernie_rt import Model, load
from ernie_rt.errors import PromptError
from ernie_rt.evaluation.logprobs import continuations
from ernie_rt.generation.options import GenerateOptions
from ernie_rt_lm_eval.rendered import Rendered

BATCH: Final = 8
NEW_TOKENS: Final = 256
QUEUED: Final = 8
"""So many requests are handed over together for each that runs at once."""

Ids = list[int]


@register_model("ernie-rt")
class ErnieRtLM(TemplateLM):
    """`lm_eval.simple_evaluate(model=ErnieRtLM(model), …)`, or by name, `model="ernie-rt"` with arguments as text."""

    def __init__(
        self,
        pretrained: str | Path | Model,
        batch_size: int | str = BATCH,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        """`pretrained` is a loaded model, or what `load` takes, with its further `options`; `batch_size` requests run
        at once, each of at most `max_length` tokens."""
        super().__init__()
        if isinstance(pretrained, Model):
            self.model = pretrained
        else:
            options.pop("max_batch_size", None)
            sequences = BATCH if batch_size == "auto" else int(batch_size)
            self.model = load(pretrained, max_sequences=sequences, max_context=max_length, **options)
        self._rendered = Rendered()

    @property
    def max_length(self) -> int:
        return self.model.capacity

    @property
    def eot_token_id(self) -> int:
        return self.model.config.eos_token_id[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing comes before."""
        begin = self.model.config.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        folder = self.model.located.folder
        return "ernie-rt" if folder is None else folder.name

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> Ids:
        """The ids of a text as it stands; those of special tokens where a chat template wrote them."""
        return self.model.tokenizer.encode_template(string, self._rendered.find(string))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        template = self.model.template
        if template is None:
            raise PromptError("the model has no chat template", hint="Leave out --apply-chat-template")
        tokenizer = self.model.tokenizer
        return self._rendered.keep(template.spans(chat_history, tokenizer, (), add_generation_prompt), tokenizer)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return None if self.model.template is None else self.model.template.source

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], Ids, Ids]], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        """How likely each continuation is; of what is too long, the beginning of the context is cut off."""
        pairs = [_last(context, continuation, self.max_length) for _, context, continuation in requests]
        found: list[tuple[float, bool]] = []
        step = QUEUED * self.model.limits.max_sequences
        with tqdm(total=len(pairs), desc="loglikelihood", disable=disable_tqdm) as bar:
            for start in range(0, len(pairs), step):
                batch = pairs[start : start + step]
                found += [(one.logprob, one.greedy) for one in continuations(self.model, batch)]
                bar.update(len(batch))
        for (texts, *_), result in zip(requests, found, strict=True):
            if texts[0] is not None:
                self.cache_hook.add_partial("loglikelihood", texts, result)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log probability of each whole text, in the harness's windows."""
        windows: list[tuple[tuple[None, None], Ids, Ids]] = []
        counts = []
        for (text,) in (request.args for request in requests):
            cut = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            mine = [((None, None), *make_disjoint_window(pair)) for pair in cut]
            windows += mine
            counts.append(len(mine))
        parts = iter(self._loglikelihood_tokens(windows, disable_tqdm))  # type: ignore[arg-type]
        sums = [sum(next(parts)[0] for _ in range(count)) for count in counts]
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """An answer to each context, up to a text of `until`, which is no part of it; greedy unless `do_sample`."""
        answers = [""] * len(requests)
        places = sorted(range(len(requests)), key=lambda place: repr(requests[place].args[1]))
        step = QUEUED * self.model.limits.max_sequences
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:
            for _, group in groupby(places, key=lambda place: repr(requests[place].args[1])):
                alike = list(group)
                given = normalize_gen_kwargs(dict(requests[alike[0]].args[1]), NEW_TOKENS)
                until, options = self._options(given)
                for start in range(0, len(alike), step):
                    batch = alike[start : start + step]
                    room = self.max_length + 1 - options["max_new_tokens"]
                    prompts = [self.tok_encode(requests[place].args[0])[-room:] for place in batch]
                    for place, ids in zip(batch, self.model.generate_batch(prompts, **options), strict=True):
                        answers[place] = _before(self.model.tokenizer.decode(ids), until)
                        self.cache_hook.add_partial("generate_until", requests[place].args, answers[place])
                    bar.update(len(batch))
        return answers

    def _options(self, given: dict[str, Any]) -> tuple[list[str], GenerateOptions]:
        """The texts that end an answer, and options of ours."""
        until = [text for text in given["until"] if text]
        options = GenerateOptions(max_new_tokens=min(given["max_gen_toks"], self.max_length), stop=until)
        if given["do_sample"]:
            options["temperature"] = given.get("temperature") or 1.0
            for name in ("top_p", "top_k", "min_p"):
                if name in given:
                    options[name] = given[name]
        ends = set(self.model.defaults.options.get("stop_ids", ()))
        if self._templated and self.model.template is not None:
            ends |= set(self.model.template.stop_ids(self.model.tokenizer))
        options["stop_ids"] = sorted(ends)
        return until, options


def _last(context: Ids, continuation: Ids, most: int) -> tuple[Ids, Ids]:
    """The end of both, with one token more than a model takes: the last one is only predicted, the first one never."""
    kept = min(len(continuation), most)
    whole = (context + continuation)[-(most + 1) :]
    return whole[: len(whole) - kept], whole[len(whole) - kept :]


def _before(text: str, ends: Iterable[str]) -> str:
    for end in ends:
        text = text.split(end)[0]
    return text
