"""The course of a training as a picture: loss, examinations, and how evenly the experts are used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Final

from ernie_rt.writing import write_atomic

WIDTH: Final = 720
HEIGHT: Final = 200
MARGIN: Final = 48
COLORS: Final = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#64748b", "#db2777")

Points = Sequence[tuple[float, float]]


def _panel(top: int, title: str, curves: Mapping[str, Points], steps: int, low: float, high: float) -> list[str]:
    def place(x: float, y: float) -> str:
        share = (min(max(y, low), high) - low) / (high - low)
        return f"{MARGIN + x / max(steps, 1) * (WIDTH - 2 * MARGIN):.1f},{top + HEIGHT - share * (HEIGHT - 30):.1f}"

    bottom = top + HEIGHT
    parts = [
        f'<text x="{MARGIN}" y="{top + 18}" font-weight="bold">{title}</text>',
        f'<path d="M{MARGIN} {top + 30}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#94a3b8"/>',
        f'<text x="{MARGIN - 6}" y="{top + 36}" text-anchor="end">{high:g}</text>',
        f'<text x="{MARGIN - 6}" y="{bottom}" text-anchor="end">{low:g}</text>',
        f'<text x="{WIDTH - MARGIN}" y="{bottom + 14}" text-anchor="end">step {steps}</text>',
    ]
    for number, (name, points) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        line = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}"/>')
        parts.append(f'<text x="{180 + 86 * number}" y="{top + 18}" fill="{color}">{name}</text>')
    return parts


def _smooth(points: Points, steps: int) -> Points:
    """Averages over one two-hundredth of the steps each."""
    size = max(1, math.ceil(steps / 200))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def write_plot(log: Path, out: Path) -> None:
    """Draw log.jsonl."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    if not entries:
        return
    steps = entries[-1]["step"] + 1
    loss = {
        name: _smooth([(entry["step"], entry[key]) for entry in entries if key in entry], steps)
        for name, key in {"next token": "loss", "MTP": "mtp_loss"}.items()
    }
    exams = {
        name: [(entry["step"], mean(entry[key].values())) for entry in entries if key in entry]
        for name, key in (("as phrased", "exam"), ("in new ways", "exam_new_ways"))
    }
    loads = {
        name: _smooth([(entry["step"], extreme(entry[key])) for entry in entries], steps)
        for name, key, extreme in (("least used", "load_min", min), ("most used", "load_max", max))
    }
    parts = [
        *_panel(0, "Loss", loss, steps, 0.0, 3.0),
        *_panel(HEIGHT + 40, "Held-out answers", exams, steps, 0.0, 1.0),
        *_panel(2 * HEIGHT + 80, "Load of an expert", loads, steps, 0.0, 3.0),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {3 * HEIGHT + 110}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )
    with write_atomic(out) as file:
        file.write("\n".join([head, *parts, "</svg>\n"]).encode())
