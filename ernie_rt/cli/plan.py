"""`ernie-rt plan`: what a model needs and how fast it will be, before anything is downloaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ernie_rt.cli.options import Dtype, Json, MaxPixels, Ref, TextOnly

if TYPE_CHECKING:
    from ernie_rt.contract.planner import Device
    from ernie_rt.modeling.config import ModelConfig
    from ernie_rt.planning.candidates import Candidate
    from ernie_rt.planning.fleet import Held
    from ernie_rt.planning.plan import Plan
    from ernie_rt.planning.seeing import Shown, Sight

    Needed = tuple[str, int, int, tuple[Held, ...]]
    """A form, a context, what they take of one device, and who holds it."""

USUAL_CONTEXTS = (1 << 10, 1 << 16, 1 << 17)
DASH = "-"
SORTS = (("cuda", False), ("mps", False), ("cuda", True))
"""Cards, Macs, several cards."""


def plan(
    model: Ref,
    context: Annotated[
        str | None, typer.Option(help="Contexts to plan for, such as 4k,32k; 1k, 64k and 128k when not given.")
    ] = None,
    sequences: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Sequences at once, each with its whole context.")
    ] = 1,
    device: Annotated[
        str, typer.Option(help="This machine (auto, cpu), or a device by its name, such as 'RTX 4090'; list shows all.")
    ] = "auto",
    storage: Annotated[
        str, typer.Option(help="Forms of the weights, such as bfloat16,int4,fp8; all when not given.")
    ] = "all",
    dtype: Dtype = "auto",
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="WxH", help="Times for a prompt with a picture of this size; may be given several times."),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(metavar="FxWxH", help="The same for a video of which so many frames are looked at: 60x1280x720."),
    ] = None,
    max_pixels: MaxPixels = None,
    text_only: TextOnly = False,
    gpus: Annotated[
        bool, typer.Option("--gpus", help="List cards and Macs that hold it, smallest first, or several where needed.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Draw it as a page, with sliders for context and sequences.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model needs, and how fast it will be.

    For every form of its weights and every backend: whether it fits, which way is chosen, and why. A known name, a
    config.json, or weights of which only headers are read will do: nothing is downloaded, nothing loaded.
    """
    from ernie_rt.cli.output import status, table, write
    from ernie_rt.errors import OptionError
    from ernie_rt.graph.types import FLOATS
    from ernie_rt.host import PluginHost
    from ernie_rt.planning.described import describe
    from ernie_rt.planning.device import known_devices
    from ernie_rt.planning.plan import make_plan
    from ernie_rt.planning.seeing import Shown
    from ernie_rt.vision.grid import usual_pixels
    from ernie_rt.writing import check_targets

    if dtype != "auto" and dtype not in FLOATS:
        raise OptionError(f"unknown dtype {dtype!r}", expected=f"auto or one of {', '.join(FLOATS)}")
    if device == "list":
        table([["DEVICE", "KIND", "MEMORY", "BANDWIDTH", "FIGURES FROM"], *map(_device_row, known_devices())])
        return
    check_targets(html)
    described, host = describe(model), PluginHost()
    config = described.config.text_alone if text_only else described.config
    with status() as tell:
        tell(f"planning {described.name} …")
        chosen, room = _device(device)
        least, most = described.pixels.min_pixels, described.pixels.max_pixels
        pixels = max_pixels or usual_pixels(least, most, on_cpu=chosen.kind == "cpu")
        shown = [Shown.of("image", size, pixels, least) for size in image or []]
        shown += [Shown.of("video", size) for size in video or []]
        made = make_plan(
            described.name, config, host, chosen, room, _contexts(context, config, shown), stored=described.stored,
            storage=storage, sequences=sequences, dtype=dtype, shown=shown, max_pixels=pixels,
        )  # fmt: skip
        needed = _holders(made) if gpus else []
        if html is not None:
            from ernie_rt.planning.machine import these_gpus, this_machine
            from ernie_rt.planning.page import write_html
            from ernie_rt.planning.picture import picture_of

            tell(f"drawing {html} …")
            write_html(html, picture_of(made, host, (this_machine(), *these_gpus())))
    if as_json:
        write(json.dumps(made.to_json() | ({"holders": _holders_json(needed)} if gpus else {})) + "\n")
    elif gpus:
        _show_holders(made, needed)
    else:
        _show(made)


def _device(name: str) -> tuple[Device, int]:
    """The device that a name means, and how many bytes of it a model may take."""
    from ernie_rt.planning.device import find_device, room
    from ernie_rt.planning.machine import these_gpus, this_machine

    if name not in ("auto", "cpu"):
        found = find_device(name)
        return found, room(found)
    gpus = these_gpus() if name == "auto" else ()
    here = gpus[0] if gpus else this_machine()
    return here, here.memory_bytes


def _contexts(text: str | None, config: ModelConfig, shown: Sequence[Shown]) -> list[int]:
    """The contexts asked for, smallest first; OptionError for one that the model does not have, or without room for
    what is shown."""
    from ernie_rt.cli.output import parse_size
    from ernie_rt.errors import OptionError

    longest, least = config.max_position_embeddings, 2 + sum(each.tokens for each in shown)
    if text is None:
        usual = {*(tokens for tokens in USUAL_CONTEXTS if least <= tokens < longest), min(longest, USUAL_CONTEXTS[-1])}
        return sorted(usual)
    contexts = sorted({parse_size(each) for each in text.split(",")})
    for tokens in contexts:
        if not least <= tokens <= longest:
            room = ", to have room for what is shown," if shown else ""
            raise OptionError(
                "--context is not possible",
                expected=f"{least}{room} to {longest}, the model's longest context",
                found=tokens,
            )
    return contexts


def _show(plan: Plan) -> None:
    from ernie_rt.cli.output import table, write
    from ernie_rt.display import human_bytes, human_count
    from ernie_rt.planning.forms import PARTS
    from ernie_rt.planning.plan import seeing_seconds

    config, device = plan.config, plan.device
    kv = ", ".join(f"{nbytes:,} bytes a token in {dtype}" for dtype, nbytes in plan.kv_bytes.items())
    write(
        f"{plan.model}: {plan.parameters:,} parameters ({human_count(plan.parameters)}), "
        f"{human_count(plan.active_parameters)} active, contexts of up to {config.max_position_embeddings:,} tokens\n"
        f"cache: {kv}\n"
    )
    if plan.sight is not None:
        _show_sight(plan, plan.sight)
    write("\n")
    parts = [part for part in PARTS if any(sizes[part] for sizes in plan.sizes.values())]
    rows = [["WEIGHTS", "ALL", *(part.upper() for part in parts), ""]]
    for form in plan.forms:
        sizes = plan.sizes[form.name]
        mark = f"not yet runnable; {form.rule}" if form.rule else ""
        rows.append([form.name, human_bytes(sum(sizes.values())), *(human_bytes(sizes[p]) for p in parts), mark])
    table(rows)
    speed = f"{device.bandwidth / 1e9:.0f} GB/s" if device.bandwidth else "bandwidth unknown"
    times = "" if plan.sequences == 1 else f", {plan.sequences} sequences at once"
    write(f"\n{device.name}: room for {human_bytes(plan.room)}, {speed}{times}\n")
    header = ["CONTEXT", "WEIGHTS", "BACKEND", "DTYPE", "HELD", "IN FILES", "CACHE", "WORKSPACE", "FITS"]
    header += ["PREFILL/s", "DECODE/s", "WHEN FULL/s"]
    rows = [_row(candidate) for candidate in plan.candidates]
    if plan.sight is not None and plan.sight.shown:
        header += ["TOWER s", "FIRST TOKEN s"]
        rows = [row + seeing_seconds(candidate) for row, candidate in zip(rows, plan.candidates, strict=True)]
    table([header, *rows])
    for context, choice in zip(plan.contexts, plan.choices, strict=True):
        write(f"\n{context:,} tokens: " + (f"{plan.obstacle(context)}\n" if choice is None else _reasons(plan, choice)))


def _show_sight(plan: Plan, sight: Sight) -> None:
    """What seeing takes, and what becomes of the pictures and videos of the request."""
    from ernie_rt.cli.output import table, write

    kv = plan.kv_bytes["bfloat16"]
    write("".join(f"{line}\n" for line in sight.lines(kv)))
    if sight.shown:
        write("\n")
        table(sight.table(kv))


def _show_holders(plan: Plan, needed: Sequence[Needed]) -> None:
    """Of one form in one context all that hold it; of several the smallest of each sort."""
    from ernie_rt.cli.output import table, write
    from ernie_rt.display import human_bytes
    from ernie_rt.planning.fleet import RULE

    if len(needed) == 1:
        ((form, tokens, nbytes, held),) = needed
        write(f"{plan.model}, {form}, {tokens:,} tokens: {human_bytes(nbytes)}\n\n")
        table([["HELD BY", "MEMORY OF ONE", "IT HOLDS", "OF ITS ROOM", "BANDWIDTH"], *map(_holder_row, held)])
    else:
        header = ["CONTEXT", "WEIGHTS", "ALL", "SMALLEST CARD", "SMALLEST MAC", "SEVERAL CARDS"]
        rows = [
            [f"{tokens:,}", form, human_bytes(nbytes), *(_first(held, *sort) for sort in SORTS)]
            for form, tokens, nbytes, held in needed
        ]
        table([header, *rows])
    write(f"\n{RULE}\n")


def _holders(plan: Plan) -> list[Needed]:
    """By context and form."""
    from ernie_rt.planning.device import known_devices
    from ernie_rt.planning.fleet import holders

    devices, config = [device for device in known_devices() if device.kind != "cpu"], plan.config
    found = []
    for tokens in plan.contexts:
        for form in plan.forms:
            bill = plan.bill(form, tokens, plan.sequences)
            held = holders(bill, config.num_attention_heads, config.num_key_value_heads, devices)
            found.append((form.name, tokens, bill.weight_bytes + bill.cache_bytes + bill.workspace_bytes, held))
    return found


def _holders_json(needed: Sequence[Needed]) -> list[dict[str, Any]]:
    return [
        {
            "weights": form,
            "context": tokens,
            "bytes": nbytes,
            "devices": [
                {"name": each.device.name, "count": each.count, "bytes": each.nbytes, "room_bytes": each.room}
                for each in held
            ],
        }
        for form, tokens, nbytes, held in needed
    ]


def _holder_row(held: Held) -> list[str]:
    from ernie_rt.display import human_bytes

    speed = held.count * held.device.bandwidth
    share = f"{held.nbytes / held.room:.0%}"
    memory = human_bytes(held.device.memory_bytes)
    return [_holder_name(held), memory, human_bytes(held.nbytes), share, f"{speed / 1e9:,.0f} GB/s"]


def _first(held: Sequence[Held], kind: str, several: bool) -> str:
    return next((_holder_name(h) for h in held if h.device.kind == kind and (h.count > 1) == several), DASH)


def _holder_name(held: Held) -> str:
    return held.device.name if held.count == 1 else f"{held.count} x {held.device.name}"


def _row(candidate: Candidate) -> list[str]:
    from ernie_rt.display import human_bytes

    bill, speed = candidate.bill, candidate.speed
    fits = candidate.fit if candidate.lacking is None else f"{candidate.fit}, not installed"
    return [
        f"{candidate.limits.max_context:,}",
        candidate.form + (f" as {candidate.dtype}" if candidate.dequantised else ""),
        candidate.backend,
        candidate.dtype,
        human_bytes(bill.held_weight_bytes),
        human_bytes(bill.mapped_bytes) if bill.mapped_bytes else DASH,
        human_bytes(bill.cache_bytes),
        human_bytes(bill.workspace_bytes),
        fits,
        DASH if speed is None else f"{speed.prefill_tokens_per_second:,.0f}",
        DASH if speed is None else f"{speed.decode_tokens_per_second:,.1f}",
        DASH if speed is None else f"{1 / speed.full_seconds:,.1f}",
    ]


def _reasons(plan: Plan, choice: Candidate) -> str:
    if choice.fit == "from disk":
        speed = ", its weights read from disk again and again"
    else:
        speed = "" if choice.speed is None else f", about {choice.speed.decode_tokens_per_second:.1f} tokens a second"
    lines = [f"{choice.form} on {choice.backend} in {choice.dtype}{speed} ({choice.basis})"]
    lines += plan.why(choice)
    lines += plan.faster(choice)
    return "\n    ".join(lines) + f"\n    {plan.command(choice)}\n"


def _device_row(device: Device) -> list[str]:
    from ernie_rt.display import human_bytes

    return [
        device.name,
        device.kind,
        human_bytes(device.memory_bytes),
        f"{device.bandwidth / 1e9:,.0f} GB/s",
        device.source,
    ]
