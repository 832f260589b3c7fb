"""A comparison as text: a line a layer, with bars where a person looks on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ernie_rt.conformance.drift import Drift, Side
from ernie_rt.conformance.replay import Piece
from ernie_rt.display import columns
from ernie_rt.modeling.ernie45 import OF_VISION

FLOOR: Final = 1e-9
"""Where a bar or a chart begins; a bar ends at 1, an error as large as the values."""
BAR: Final = 18
"""Characters of a full bar: two for each power of ten."""
MAX_WRONG: Final = 3
"""How many wrong pieces are named: more are the same mistake in further layers."""
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True, slots=True)
class Layer:
    """The pieces of one layer, or of what comes before or after the layers."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def end(self) -> Piece:
        """The last piece that has values: what the layer hands on."""
        return [piece for piece in self.pieces if piece.agreement is None][-1]

    @property
    def worst(self) -> Piece:
        return max(self.pieces, key=lambda piece: piece.own)

    @property
    def agreement(self) -> float | None:
        return next((piece.agreement for piece in self.pieces if piece.agreement is not None), None)


def layers(side: Side) -> list[Layer]:
    """The pieces of a side, layer by layer."""
    grouped: dict[str, list[Piece]] = {}
    for piece in side.pieces:
        grouped.setdefault(layer_name(piece.scope), []).append(piece)
    return [Layer(name, tuple(pieces)) for name, pieces in grouped.items()]


def layer_name(scope: str) -> str:
    """`layers.3` of `layers.3.mlp.route`, `head` of `head.norm`; of a vision tower `vision.layers.3`."""
    first, *rest = scope.removeprefix(OF_VISION).split(".")
    tower = OF_VISION if scope.startswith(OF_VISION) else ""
    return tower + (f"{first}.{rest[0]}" if first == "layers" and rest else first)


def drift_text(drift: Drift, show: Callable[[int], str] = str, *, bars: bool = False) -> str:
    """Both sides layer by layer, then where the paths part, then the verdict. `show` prints a token."""
    blocks = [_side_text(label, side, bars) for label, side in zip("AB", drift.sides, strict=True)]
    prompt, answer = len(drift.prompt), drift.compared - len(drift.prompt)
    lines = [f"compared {drift.compared} tokens: {prompt} of prompt, and {answer} of answer that are the same"]
    if drift.split is not None:
        lines += split_lines(drift, show)
    return "\n\n".join([*blocks, "\n".join([*lines, f"{drift.verdict}: {drift.reason}"])]) + "\n"


def split_lines(drift: Drift, show: Callable[[int], str]) -> list[str]:
    """Where the paths part, in words."""
    split = drift.split
    assert split is not None
    lines = [f"token {split.index} of the answer differs:"]
    for label, token, behind, noise in zip("AB", split.tokens, split.behind, split.noise, strict=True):
        place = "the oracle's best" if behind == 0 else f"{behind:.2g} below the oracle's best"
        lines.append(f"  {label} says {show(token)} ({token}), {place}; rounding moves its logits by {noise:.2g}")
    best, second = split.best
    lines.append(
        f"  the oracle's best two are {show(best)} ({best}) and {show(second)} ({second}), {split.margin:.2g} apart"
    )
    return lines


def number(value: float | None) -> str:
    """`1.2e-03`, or a dash for what has no number."""
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def own(piece: Piece) -> str:
    return f"{piece.own:.1f}" if piece.own < 1000 else f"{piece.own:.1e}"


def _side_text(label: str, side: Side, bars: bool) -> str:
    found = layers(side)
    routed = any(layer.agreement is not None for layer in found)
    header = ["", "DRIFT", "NOISE", "OWN", "OF", *(["ROUTER"] if routed else []), *([""] if bars else [])]
    rows = [header]
    for layer in found:
        end, worst = layer.end, layer.worst
        row = [layer.name, number(end.drift), number(end.noise), own(worst), _part(worst, layer)]
        if routed:
            row.append("" if layer.agreement is None else f"{layer.agreement:.1%}")
        rows.append([*row, _bar(end.drift)] if bars else row)
    wrong = [f"wrong: {piece.scope}: {piece.finding}" for piece in side.pieces if piece.wrong]
    if len(wrong) > MAX_WRONG:
        wrong[MAX_WRONG:] = [f"… and {len(wrong) - MAX_WRONG} more"]
    untapped = "  (hands back no taps, so it is judged as a whole)" if len(side.pieces) == 1 else ""
    return "\n".join([f"{label}  {side.name}{untapped}", columns(rows), *wrong])


def _part(piece: Piece, layer: Layer) -> str:
    return piece.scope.removeprefix(layer.name).removeprefix(".") or piece.scope


def _bar(value: float | None) -> str:
    """A bar whose length is the logarithm."""
    if value is None or value <= FLOOR:
        return ""
    eighths = round(8 * BAR * min(1.0, 1 + math.log10(min(value, 1.0)) / -math.log10(FLOOR)))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
