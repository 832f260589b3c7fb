"""`ernie-rt run`: answer or continue one prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ernie_rt.cli import options as opt
from ernie_rt.cli.output import AnswerWriter, PeakMemory, parse_size, say, write
from ernie_rt.cli.prompts import from_argument, read_prompt
from ernie_rt.errors import ContextError, OptionError, PromptError

if TYPE_CHECKING:
    from ernie_rt.generation.options import GenerateOptions
    from ernie_rt.generation.stream import Generation
    from ernie_rt.location import Located
    from ernie_rt.session import Model
    from ernie_rt.text.chat import ChatPrompt, ChatTemplate
    from ernie_rt.text.media import Media
    from ernie_rt.text.media_reader import MediaReader


def run(
    model: opt.Ref,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - or nothing reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None,
    images: opt.Images = None,
    videos: opt.Videos = None,
    max_pixels: opt.MaxPixels = None,
    fps: opt.Fps = None,
    max_frames: opt.MaxFrames = None,
    system: opt.System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as plain text, also where there is a chat template.")
    ] = False,
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
    ignore_eos: opt.IgnoreEos = False,
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
    receipt: Annotated[
        Path | None,
        typer.Option(
            help="Write to this new file what the answer was made of, so that `ernie-rt replay` can make it again."
        ),
    ] = None,
    receipt_text: Annotated[
        bool, typer.Option("--receipt-text", help="Put the texts of prompt and answer into the receipt as well.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let the receipt replace a file.")] = False,
    why: opt.Why = False,
    verbose: opt.Verbose = False,
    quiet: opt.Quiet = False,
    as_json: opt.Json = False,
) -> None:
    """Answer a prompt; without a chat template, continue it.

    With --raw it is continued as well. The answer streams to standard output, everything else goes to standard error.
    A vision-language model answers about pictures and videos that come before the prompt.
    What no option says is taken from the checkpoint's generation_config.json, or greedy; -v prints it.
    """
    import secrets

    from ernie_rt.choice import first_kind
    from ernie_rt.cli.loaded import explain, loaded, progress_bar, quantized
    from ernie_rt.cli.pictures import Sight, most_patches, say_items
    from ernie_rt.generation.options import NEW_CHAT_TOKENS, NEW_TOKENS, check_options
    from ernie_rt.location import locate
    from ernie_rt.text.media_reader import names

    if receipt is None and (receipt_text or overwrite):
        raise OptionError("--receipt-text and --overwrite are about a receipt", hint="Add --receipt FILE")
    if receipt is not None:
        from ernie_rt.receipts.receipt import check_free

        check_free(receipt, overwrite=overwrite)
        if thinking_budget is not None:
            raise OptionError(
                "there is no receipt of an answer whose reasoning has a budget", hint="Leave one of them out"
            )
    media = Sight(max_pixels, fps, max_frames).media(images, videos)
    text = read_prompt(prompt, file)
    options = opt.given_options(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, seed=seed,
        repetition_penalty=repetition_penalty, stop=stop, thinking_budget=thinking_budget,
        ignore_eos=ignore_eos or None,
    )  # fmt: skip
    # What is wrong is said before the weights are read.
    located = locate(model)
    located = located.text_alone if text_only else located
    vocabulary, longest = located.config.vocab_size, _longest(located.config.max_position_embeddings, max_context)
    checked = check_options(located.config.eos_token_id, vocabulary, **(located.defaults.options | options))
    template = None if raw else located.template
    if template is not None and prompt in (None, "-"):
        text = text.removesuffix("\n")  # of a file, or of echo
    reader = located.reader(first_kind(device), max_patches) if media else None
    request = _request(located, template, [*media, text], system, thinking, reader, longest)
    chat = None if isinstance(request, list) else (request, located.tokenizer)
    ids, items = (request, []) if isinstance(request, list) else (request.ids, [item for _, item in request.items])
    checked.request(tuple(ids), located.known_ids, chat)
    settled = located.defaults.settle(
        options, room=longest + 1 - len(ids), new_tokens=NEW_TOKENS if template is None else NEW_CHAT_TOKENS
    )
    needed = len(ids) + settled["max_new_tokens"] - 1
    if needed > longest:
        raise ContextError(
            "prompt and answer are longer than the context",
            expected=f"at most {longest} tokens",
            found=f"{len(ids)} of prompt and {settled['max_new_tokens']} new",
            hint="Shorten the prompt, or lower --max-new-tokens"
            + ("" if max_context is None else ", or raise --max-context"),
        )
    if settled.get("temperature", 0) > 0:
        seed = settled["seed"] = secrets.randbits(32) if seed is None else seed
    else:
        seed = None
    source = quantized(
        located, weights, threads, backend=backend, device=device, dtype=dtype, deterministic=deterministic
    )
    identity = None
    if receipt is not None:
        from ernie_rt.receipts.making import identify
        from ernie_rt.receipts.receipt import TOP

        settled |= {"margins": True, "logprobs": TOP}
        source = source or located.weights()
        with progress_bar("hashing") as hashing:
            identity = identify(located, source, hashing)
    with (
        PeakMemory() as peak,
        loaded(
            located, backend=backend, device=device, dtype=dtype, max_context=needed,
            max_batch_tokens=max_batch_tokens, max_patches=max_patches or most_patches(items),
            threads=threads, graphs=graphs, memory=memory, cache_dir=cache_dir, cache_size=cache_size,
            deterministic=deterministic, why=why, verbose=verbose, quiet=quiet, weights=source,
        ) as ready,
    ):  # fmt: skip
        if verbose:
            explain(located, template, settled)
        if not quiet:
            say_items(zip(names(media), items, strict=True), verbose=verbose)
        answer, interrupted = _answer(ready, request, settled, quiet=as_json)
        report = _report(answer, ready, peak.look(), seed)
        if receipt is not None and answer.ids:
            from ernie_rt.receipts.making import make_receipt

            made = make_receipt(ready, answer, identity=identity)
            if receipt_text:
                made = replace(made, text={"prompt": text, "answer": answer.text})
            made.write(receipt, overwrite=overwrite)
        # Said before the model is closed, in which its backend may fail.
        if as_json:
            calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in answer.tool_calls]
            shown = {"text": answer.text, "reasoning": answer.reasoning, "tool_calls": calls, "ids": list(answer.ids)}
            write(json.dumps(shown | report) + "\n")
        if not quiet:
            say(_summary(report))
    if interrupted:
        raise typer.Exit(130)


def _longest(model: int, wanted: str | None) -> int:
    """How many tokens prompt and answer may have; OptionError for a wish that the model cannot meet."""
    tokens = model if wanted is None else parse_size(wanted)
    if not 1 <= tokens <= model:
        raise OptionError(
            "--max-context is not possible", expected=f"1 to {model}, the model's longest context", found=wanted
        )
    return tokens


def _request(
    located: Located,
    template: ChatTemplate | None,
    parts: list[str | Media],
    system: str | None,
    thinking: bool | None,
    reader: MediaReader | None,
    most: int,
) -> list[int] | ChatPrompt:
    """The prompt as a conversation to answer, or as ids to continue; its text comes last in `parts`."""
    from ernie_rt.text.chat import encode_parts

    tokenizer, text = located.tokenizer, parts[-1]
    assert isinstance(text, str)
    if template is not None and (text.strip() or parts[:-1]):
        messages = [{"role": "system", "content": from_argument(system)}] if system else []
        asked = {"role": "user", "content": parts}
        return template.prompt([*messages, asked], tokenizer, thinking=thinking, reader=reader, most=most)
    if template is None:
        for name, given in (("--system", system), ("--thinking", thinking)):
            if given is not None:
                raise OptionError(
                    f"{name} needs a chat template, and that of the model, without --raw", hint="Leave it out"
                )
        if parts[:-1]:
            return encode_parts(parts, tokenizer, reader, most)
    ids = tokenizer.encode(text) if template is None else []
    if not ids:
        raise PromptError("the prompt is empty", hint="Give at least one token")
    return ids


def _answer(
    model: Model, request: list[int] | ChatPrompt, options: GenerateOptions, *, quiet: bool
) -> tuple[Generation, bool]:
    """The answer, shown as it comes unless `quiet`; and whether it was interrupted."""
    if isinstance(request, list):
        stream = model.generate(request, stream=True, **options)
    else:
        stream = model.chat(request, stream=True, **options)
    interrupted = False
    try:
        with stream, nullcontext() if quiet else AnswerWriter() as writer:
            for piece in stream:
                if writer is not None:
                    writer.show(piece)
    except KeyboardInterrupt:
        interrupted = True
    return stream.generation, interrupted


def _report(answer: Generation, model: Model, peak: int, seed: int | None) -> dict[str, str | int | float | None]:
    new, entered = len(answer.ids), answer.prompt_tokens - answer.cached_tokens - answer.reused_after_change
    choice, memory = model.choice, model.memory()
    return {
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "new_tokens": new,
        "finish": answer.finish,
        "prefill_tokens_per_second": entered / answer.prefill_seconds if new else None,
        "decode_tokens_per_second": (new - 1) / answer.decode_seconds if new > 1 else None,
        "peak_private_bytes": peak,
        "device_bytes": memory.nbytes,
        "mapped_bytes": memory.mapped_bytes,
        "experts_from_disk": memory.experts_from_disk,
        "backend": choice.backend,
        "device": choice.device,
        "dtype": choice.dtype,
        "seed": seed,
    }


def _summary(report: Mapping[str, object]) -> str:
    from ernie_rt.display import human_bytes

    parts = [
        f"{name} {rate:.1f} tokens/s" if isinstance(rate, float) else f"{name} -"
        for name, rate in (
            ("prefill", report["prefill_tokens_per_second"]),
            ("decode", report["decode_tokens_per_second"]),
        )
    ]
    peak = report["peak_private_bytes"]
    assert isinstance(peak, int)
    parts.append(f"peak {human_bytes(peak)}")
    if report["cached_tokens"]:
        parts.insert(0, f"{report['cached_tokens']:,} of {report['prompt_tokens']:,} prompt tokens from the cache")
    if report["experts_from_disk"]:
        parts.append(f"{report['experts_from_disk']:.0%} of experts from disk")
    parts += [str(report[key]) for key in ("backend", "device", "dtype")]
    if report["seed"] is not None:
        parts.append(f"seed {report['seed']}")
    return " · ".join(parts)
