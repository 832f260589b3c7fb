"""A report as text, Markdown and JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ernie_rt.display import columns, human_bytes
from ernie_rt.planning.machine import this_cpu
from ernie_rt_bench.workload import Kind, Report, Result, Spread

PACKAGES: Final = ("ernie-rt", "torch", "onnxruntime", "onnxruntime-gpu", "transformers", "onnxruntime-genai", "numpy")
FEW_PARTS: Final = 16
"""Rows of a step by op; the rest is one row."""

DISTURBED: Final = 0.35
"""Cores that others keep busy before that is said; the system itself takes some, for the memory of what is measured."""

Table = list[list[str]]


def machine() -> str:
    cpu = this_cpu()
    return f"{cpu.name}, {cpu.cores} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Of what takes part, or could."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def report_json(report: Report) -> str:
    """Every measurement, and the medians that the tables show."""
    told = asdict(report)
    for result, row in zip(report.results, told["results"], strict=True):
        row["tokens_per_second"] = {
            f"{kind} {context}": asdict(spread) for (kind, context), spread in speeds(report, result).items()
        }
        row["share_of_floor"] = {
            str(context): asdict(Spread.of(shares))
            for context in report.workload.contexts
            if (shares := result.shares(context))
        }
    return json.dumps(told, indent=2) + "\n"


def speeds(report: Report, result: Result) -> dict[tuple[Kind, int], Spread]:
    """Tokens a second of each thing that was measured."""
    kinds: tuple[Kind, ...] = ("prefill", "decode")
    return {
        (kind, context): Spread.of(each.speed for each in result.of(kind, context))
        for context in report.workload.contexts
        for kind in kinds
    }


def report_text(report: Report) -> str:
    blocks = [heading(report), columns(speed_table(report)), *remarks(report)]
    tables = picture_table(report), floor_table(report), ratio_table(report)
    blocks += [columns(table) for table in tables if len(table) > 1]
    for result in report.results:
        for step in result.steps:
            blocks.append(f"{step_heading(result, step)}\n{columns(step_table(step))}")
    return "\n\n".join(blocks) + "\n"


def report_markdown(report: Report) -> str:
    tables = [speed_table(report), picture_table(report), floor_table(report), ratio_table(report)]
    blocks = [f"# {report.model}", heading(report)]
    blocks += [*(_markdown(table) for table in tables if len(table) > 1), *remarks(report)]
    for result in report.results:
        for step in result.steps:
            blocks += [f"## {step_heading(result, step)}", _markdown(step_table(step))]
    blocks.append(", ".join(f"{package} {number}" for package, number in report.versions.items()))
    return "\n\n".join(blocks) + "\n"


def heading(report: Report) -> str:
    work = report.workload
    random = ", random weights" if any(result.facts.get("random") for result in report.results) else ""
    read = Spread.of(report.bandwidths)
    return (
        f"{report.model}{random}, on {report.machine}; {work.threads} threads, {work.rounds} rounds in turns; "
        f"memory read at {read.least / 1e9:.1f} to {read.most / 1e9:.1f} GB/s (median {read.median / 1e9:.1f})"
    )


def remarks(report: Report) -> list[str]:
    """What is to be known before anything is concluded."""
    if report.disturbed < DISTURBED:
        return []
    return [
        f"Other work kept up to {report.disturbed:.1f} cores busy during a measurement: figures are lower than they "
        "would be alone, and not all by as much."
    ]


def speed_table(report: Report) -> Table:
    """Tokens a second, the median and in brackets the least and the most."""
    new = report.workload.new
    rows = [["TOKENS/S"]]
    for context in report.workload.contexts:
        rows[0] += [f"PREFILL {context}", f"DECODE {new} AFTER {context}"]
    rows[0] += ["FIRST TOKEN", "PRIVATE MEMORY"]
    for result in report.results:
        first = result.facts.get("first")
        rows.append(
            [
                result.name,
                *(_spread(spread) for spread in speeds(report, result).values()),
                "" if first is None else f"{first:.1f} s",
                human_bytes(result.peak_bytes) if result.peak_bytes else "",
            ]
        )
    return rows


def picture_table(report: Report) -> Table:
    """Seconds of the tower for a picture, and of a prompt behind one; nothing where none was shown."""
    work = report.workload
    if work.picture is None:
        return []
    width, height = work.picture
    tokens, text = work.picture_tokens, min(work.contexts)
    rows = [["SECONDS", f"TOWER {width}x{height}, {tokens} TOKENS", f"FIRST TOKEN AFTER IT AND {text}"]]
    for result in report.results:
        kinds: tuple[tuple[Kind, int], ...] = (("tower", tokens), ("picture", tokens + text))
        spreads = (Spread.of(each.seconds for each in result.of(*kind)) for kind in kinds)
        rows.append([result.name, *(f"{s.median:.3g} ({s.least:.3g} to {s.most:.3g})" for s in spreads)])
    return rows


def floor_table(report: Report) -> Table:
    """What a decoded token has to read, and the share of the floor that was reached."""
    rows = [["FLOOR", "A TOKEN READS", "AT MOST", "REACHED"]]
    for result in report.results:
        for context in report.workload.contexts:
            if shares := result.shares(context):
                needed = result.facts["decode_bytes"][str(context)]
                most = Spread.of(each.bandwidth / needed for each in result.of("decode", context))
                reached = Spread.of(shares)
                rows.append(
                    [
                        f"{result.name}, after {context}",
                        f"{needed / 1e6:.0f} MB",
                        f"{most.median:.1f} tokens/s",
                        f"{reached.median:.0%} ({reached.least:.0%} to {reached.most:.0%})",
                    ]
                )
    return rows


def ratio_table(report: Report) -> Table:
    """How many times as fast the first contender is as each other one."""
    first, *others = report.results
    rows = [[f"{first.name} OVER"], *([other.name] for other in others)]
    kinds: tuple[Kind, ...] = ("prefill", "decode")
    for context in report.workload.contexts:
        for kind in kinds:
            rows[0].append(f"{kind.upper()} {'AFTER ' if kind == 'decode' else ''}{context}")
            for row, ratio in zip(rows[1:], report.ratios(kind, context).values(), strict=True):
                row.append(f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})")
    return rows


def step_heading(result: Result, step: Mapping[str, Any]) -> str:
    return f"{result.name}: {step['kind']}, {1e3 * step['seconds']:.2f} ms"


def step_table(step: Mapping[str, Any]) -> Table:
    rows = [["OP", "WHERE", "NODES", "MS", "SHARE"]]
    parts: Sequence[Mapping[str, Any]] = step["parts"]
    rows += [_part_row(**part, whole=step["seconds"]) for part in parts[:FEW_PARTS]]
    if rest := parts[FEW_PARTS:]:
        seconds = sum(part["seconds"] or 0.0 for part in rest)
        rows.append(_part_row("", "the rest", 1, seconds, whole=step["seconds"]))
    return rows


def _part_row(op: str, where: str, count: int, seconds: float | None, *, whole: float) -> list[str]:
    if seconds is None:
        return [op, where, str(count), "not known", ""]
    return [op or "-", where, str(count) if op else "", f"{1e3 * seconds:.3f}", f"{seconds / whole:.1%}"]


def _spread(spread: Spread) -> str:
    digits = 0 if spread.median >= 100 else 1
    return f"{spread.median:.{digits}f} ({spread.least:.{digits}f} to {spread.most:.{digits}f})"


def _markdown(table: Table) -> str:
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
