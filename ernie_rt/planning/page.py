"""A plan as a page: what each way to hold a model takes of a device, with sliders for context and sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from ernie_rt.contract.planner import Device
from ernie_rt.html import embedded, page, write_page
from ernie_rt.planning.device import room
from ernie_rt.planning.speed import Decode

SEQUENCES: Final = (1, 2, 4, 8, 16, 32, 64)
KIBI: Final = 1024

Grid = tuple[tuple[int, ...], ...]
"""Bytes by context, then by sequences."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A way to hold a model on a kind of device ("cpu", "cuda", "mps"): the bytes of weights by part, and of the cache
    and the workspace. Of the weights `mapped_bytes` are read where they lie in files."""

    name: str
    kind: str
    weights: Mapping[str, int]
    cache: Grid
    workspace: Grid
    mapped_bytes: int = 0
    decode: Decode | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """What a page shows, and what it shows first: a context, a number of sequences, and a device.

    `here` are devices of this machine, of which memory that is free is known. They and `others` are to choose from.
    """

    model: str
    about: str
    contexts: tuple[int, ...]
    bars: tuple[Bar, ...]
    here: tuple[Device, ...]
    others: tuple[Device, ...]
    context: int
    sequences: int
    device: str
    seen: str = ""
    """What is to be said of pictures and videos, as HTML."""


def context_stops(longest: int) -> tuple[int, ...]:
    """Contexts for a slider: 1k, 2k, 4k, …, and the longest."""
    return (*(stop for stop in (KIBI << i for i in range(longest.bit_length())) if stop < longest), longest)


def plan_html(picture: Picture) -> str:
    title, sections, style, script = _parts(picture)
    return page(title, *sections, style=style, script=script)


def write_html(path: Path, picture: Picture) -> None:
    """Write a plan as a page; WriteError when that fails, and then `path` is as it was."""
    title, sections, style, script = _parts(picture)
    write_page(path, title, *sections, style=style, script=script)


def _parts(picture: Picture) -> tuple[str, list[str], str, str]:
    assets = files(__package__)
    sections = [
        f"<p>{escape(picture.about)}</p>",
        assets.joinpath("page.html").read_text("utf-8"),
        picture.seen,
        embedded(_data(picture)),
    ]
    style, script = (assets.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    return f"What {picture.model} takes", sections, style, script


def _data(picture: Picture) -> dict[str, Any]:
    devices = [
        {
            "name": device.name,
            "kind": device.kind,
            "bandwidth": device.bandwidth,
            "flops": dict(device.flops),
            "room": space,
            "here": here,
        }
        for here, group in ((True, picture.here), (False, picture.others))
        for device, space in ((device, device.memory_bytes if here else room(device)) for device in group)
    ]
    chosen = {
        "context": nearest_stop(picture.contexts, picture.context),
        "sequences": nearest_stop(SEQUENCES, picture.sequences),
        "device": next(place for place, device in enumerate(devices) if device["name"] == picture.device),
    }
    bars = [asdict(bar) for bar in picture.bars]
    return {"contexts": picture.contexts, "sequences": SEQUENCES, "devices": devices, "chosen": chosen, "bars": bars}


def nearest_stop(stops: Sequence[int], wanted: int) -> int:
    """The place of the first stop that is at least what is wanted, or of the last."""
    return next((place for place, stop in enumerate(stops) if stop >= wanted), len(stops) - 1)
