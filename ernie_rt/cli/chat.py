"""`ernie-rt chat`: talk with a model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import completion
from ernie_rt.cli import options as opt
from ernie_rt.cli.output import parse_size, say
from ernie_rt.cli.prompts import from_argument
from ernie_rt.display import printable
from ernie_rt.errors import ErnieRtError, PromptError

if TYPE_CHECKING:
    from ernie_rt.cli.talk import Talk
    from ernie_rt.session import Model


def chat(
    model: opt.Ref,
    system: opt.System = None,
    max_pixels: opt.MaxPixels = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--load",
            metavar="NAME",
            help="Take up a saved conversation: a name or a .json file.",
            autocompletion=completion.conversations,
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--forget", help="Keep what is typed and said on disk, or write nothing.")
    ] = True,
    max_new_tokens: opt.NewTokens = None,
    temperature: opt.Temperature = None,
    top_p: opt.TopP = None,
    top_k: opt.TopK = None,
    min_p: opt.MinP = None,
    seed: opt.Seed = None,
    repetition_penalty: opt.Repetition = None,
    stop: opt.Stop = None,
    thinking: opt.Thinking = None,
    thinking_budget: opt.ThinkingBudget = None,
    weights: opt.Quantize = None,
    text_only: opt.TextOnly = False,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    max_context: opt.MaxContext = None,
    max_batch_tokens: opt.BatchTokens = None,
    max_patches: opt.MaxPatches = None,
    threads: opt.Threads = None,
    graphs: opt.Graphs = True,
    deterministic: opt.Deterministic = False,
    memory: opt.Memory = None,
    cache_dir: opt.CacheDir = None,
    cache_size: opt.CacheSize = None,
    why: opt.Why = False,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
) -> None:
    """Talk with a model; /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.

    A vision-language model is shown pictures by /image, and videos by /video. Each conversation is kept in a file of
    its own, in ~/.local/state/ernie-rt/chat or where XDG_STATE_HOME says.
    """
    from ernie_rt.cli.keyboard import keyboard
    from ernie_rt.cli.loaded import explain, loaded, quantized
    from ernie_rt.cli.pictures import Sight
    from ernie_rt.cli.store import Store, user_store
    from ernie_rt.cli.talk import Talk
    from ernie_rt.cli.typed import piped
    from ernie_rt.generation.options import NEW_CHAT_TOKENS, check_options
    from ernie_rt.location import locate

    if sys.stdin is None:
        raise PromptError("standard input is closed, so there is nobody to talk with", hint="`ernie-rt run` needs none")
    options = opt.given_options(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, stop=stop, thinking_budget=thinking_budget,
    )  # fmt: skip
    # What is wrong is said before the weights are read.
    located = locate(model)
    located = located.text_alone if text_only else located
    settled = located.defaults.settle(options, room=NEW_CHAT_TOKENS, new_tokens=NEW_CHAT_TOKENS)
    checked = check_options(located.config.eos_token_id, located.config.vocab_size, **settled)
    template = located.template
    if template is None:
        raise PromptError("the model has no chat template", where=model, hint="`ernie-rt run` continues plain text")
    prompt = template.prompt([{"role": "user", "content": "Hello"}], located.tokenizer, thinking=thinking)
    checked.request(prompt.ids, located.known_ids, (prompt, located.tokenizer))
    sight = Sight(max_pixels, fps, max_frames)
    talk = Talk(model, options, user_store() if keep else Store(None), verbose, thinking=thinking, sight=sight)
    if resume is not None:
        talk.load(resume)
    if system is not None:
        talk.system(from_argument(system))
    typed = sys.stdin.isatty()
    with (
        keyboard(talk.store.history) if typed else piped(sys.stdin.buffer) as read,
        loaded(
            located, backend=backend, device=device, dtype=dtype,
            max_context=None if max_context is None else parse_size(max_context),
            max_batch_tokens=max_batch_tokens, max_patches=max_patches, threads=threads, graphs=graphs, memory=memory,
            cache_dir=cache_dir, cache_size=cache_size,
            deterministic=deterministic, why=why, verbose=verbose, quiet=quiet,
            weights=quantized(
                located, weights, threads, backend=backend, device=device, dtype=dtype, deterministic=deterministic
            ),
        ) as ready,
    ):  # fmt: skip
        if verbose:
            explain(located, template, settled)
        if typed:
            if not quiet:
                say(f"{ready.choice.backend} · {ready.choice.device} · {ready.choice.dtype}; /help lists the commands")
            _converse(talk, ready, read)
        else:
            _answer_all(talk, ready, read)


def _converse(talk: Talk, model: Model, read: Callable[[str], str | None]) -> None:
    """Take what a person types until it ends; errors are said, and the talk goes on."""
    from ernie_rt.cli.typed import next_text

    while True:
        try:
            text = next_text(read)
            if text is None or not talk.take(text, model):
                return
        except KeyboardInterrupt:
            say("")
        except ErnieRtError as error:
            say(printable(str(error)))


def _answer_all(talk: Talk, model: Model, read: Callable[[str], str | None]) -> None:
    """Take what a file or pipe holds until it ends; the first error ends the run, and what is left out is said."""
    from ernie_rt.cli.typed import next_text

    for number in itertools.count(1):
        try:
            text = next_text(read)
            if text is None or not talk.take(text, model):
                return
        except (ErnieRtError, KeyboardInterrupt):
            say(f"stopped at message {number} of standard input; what comes after it is not answered")
            raise
