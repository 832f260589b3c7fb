"""Options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from ernie_rt.cli import completion

if TYPE_CHECKING:
    from ernie_rt.generation.options import GenerateOptions

Ref = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A folder, a known name such as demo (`ernie-rt models`), or a hub id.",
        autocompletion=completion.models,
    ),
]


class Weights(StrEnum):
    """What weights are to be quantised to."""

    int4 = "int4"
    int8 = "int8"

    @property
    def bits(self) -> Literal[4, 8]:
        return 4 if self is Weights.int4 else 8


Quantize = Annotated[
    Weights | None,
    typer.Option("--weights", help="Quantise the model, once, into `ernie-rt cache`, and use that."),
]
Backend = Annotated[
    str,
    typer.Option(help="A backend by name, or auto (`ernie-rt backends`).", autocompletion=completion.backends),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, …", autocompletion=completion.devices)]
Dtype = Annotated[
    str,
    typer.Option(help="auto (the checkpoint's), float32, bfloat16 or float16.", autocompletion=completion.dtypes),
]
BatchTokens = Annotated[
    int | None, typer.Option(min=1, help="Prompt tokens that enter one step; 512 when not given, on CUDA 4096.")
]
MaxPatches = Annotated[
    int | None,
    typer.Option(min=1, help="Patches (14 by 14 pixels) encoded in one step; larger pictures are made smaller."),
]


def _check_threads(threads: int | None) -> int | None:
    from ernie_rt.loading import check_threads

    return None if threads is None else check_threads(threads)


Threads = Annotated[
    int | None, typer.Option(min=1, callback=_check_threads, help="CPU threads; all cores when not given.")
]
Graphs = Annotated[
    bool, typer.Option("--graphs/--no-graphs", help="Let a GPU replay recorded steps, or start each kernel anew.")
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Answers that depend, bit by bit, on nothing that runs beside them.")
]
Memory = Annotated[str | None, typer.Option(help="Refuse to load more than this, such as 12GiB.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Keep what was computed of long prompts in this folder, for the next time."),
]
CacheSize = Annotated[str | None, typer.Option(help="What --cache-dir may take, such as 20GiB; 8GiB when not given.")]
MaxContext = Annotated[
    str | None, typer.Option(help="How many tokens a prompt and its answer may have together, such as 8k.")
]
TextOnly = Annotated[
    bool, typer.Option("--text-only", help="Of a vision-language model the text alone: it takes no pictures.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but the answer and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what was settled for you, and why.")]
Why = Annotated[bool, typer.Option("--why", help="Say why the model runs as it does, and what would be faster.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Images = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="FILE",
        help="Show a picture; may be given several times. Pictures, then videos, come before the prompt.",
        autocompletion=completion.files,
    ),
]
Videos = Annotated[
    list[str] | None,
    typer.Option(
        "--video", metavar="FILE", help="Show a video; may be given several times.", autocompletion=completion.files
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(min=1, help="Make larger pictures smaller; on a CPU 802816 when not given, which is 1,024 tokens."),
]
Fps = Annotated[float | None, typer.Option(help="Frames of a video to look at a second; 2 when not given.")]
MaxFrames = Annotated[
    int | None,
    typer.Option(
        min=1, help="At most so many frames of a video (of one a little longer, one more); 180 when not given."
    ),
]
Thinking = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Let the answer begin with reasoning, where the template has both."),
]

System = Annotated[str | None, typer.Option(help="A system prompt: how the model is to behave.")]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", min=1, help="At most so many new tokens an answer.")
]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token; higher is more varied.")]
TopP = Annotated[float | None, typer.Option(help="Sample among the likeliest tokens of this probability in all.")]
TopK = Annotated[int | None, typer.Option(help="Sample among so many of the likeliest tokens; 0: all.")]
MinP = Annotated[float | None, typer.Option(help="Sample among tokens at least so likely beside the likeliest.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]
Repetition = Annotated[float | None, typer.Option(help="Above 1 makes tokens seen before less likely.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")]
ThinkingBudget = Annotated[
    int | None, typer.Option(min=0, help="End a model's reasoning after so many tokens; 0: no reasoning.")
]
IgnoreEos = Annotated[bool, typer.Option(help="Go on past an end-of-sequence token.")]


def given_options(**options: object) -> GenerateOptions:
    """Those that were given on the command line; the checkpoint's defaults stand in for the others."""
    return cast("GenerateOptions", {name: value for name, value in options.items() if value is not None})


def describe(options: GenerateOptions) -> str:
    """`temperature 0.8, top_p 0.8`: options for a person to read."""
    return ", ".join(f"{name} {value}" for name, value in options.items() if value not in ((), [], None))
