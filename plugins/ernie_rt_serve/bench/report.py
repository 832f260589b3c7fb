"""A report as text: a block for each load."""

from __future__ import annotations

from ernie_rt.display import columns
from ernie_rt_serve.bench.figures import LATENCIES, Spread, Summary
from ernie_rt_serve.bench.run import Phase, Report

COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def report_text(report: Report) -> str:
    settings = report.settings
    if settings.dataset is None:
        asked = f"prompts of {settings.prompt} tokens, each unlike any other"
        if settings.shared_prefix:
            asked += f", after {settings.shared_prefix} that all share"
    else:
        asked = f"prompts of {settings.dataset}"
    head = (
        f"{settings.model} at {settings.base_url}, {settings.endpoint}\n"
        f"{asked}; answers of {settings.answer} tokens; seed {settings.seed}\n"
    )
    notes = "".join(f"note: {note}\n" for note in report.notes)
    return "\n".join([head, *(_phase_text(phase) for phase in report.phases), *([notes] if notes else [])])


def _phase_text(phase: Phase) -> str:
    summary = phase.summary
    failed = "none failed" if not summary.failed else f"{summary.failed} failed ({_errors(summary)})"
    rows = [["", *COLUMNS]]
    rows += [[label, *_cells(summary.latencies[name])] for name, label in LATENCIES.items()]
    return (
        f"{phase.load}: {summary.requests} requests in {summary.seconds:.1f} s, {failed}\n"
        f"{columns(rows)}\n{_requests(summary)}\n{_tokens(summary)}\n"
    )


def _requests(summary: Summary) -> str:
    rate = f"{summary.requests_per_second:.2f} requests/s"
    if summary.good_share is None:
        return rate
    return f"{rate}, {summary.good_per_second:.2f} of them good ({summary.good_share:.0%} of all)"


def _tokens(summary: Summary) -> str:
    prompt, output, cached = summary.prompt_tokens, summary.output_tokens, summary.cached_share
    if prompt is None or output is None:
        return "tokens not counted by the server"
    return (
        f"tokens/s: {summary.output_tokens_per_second:.1f} of answers ({output.mean:.0f} each), "
        f"{summary.prompt_tokens_per_second:.1f} of prompts ({prompt.mean:.0f} each, "
        + ("cached ones not reported)" if cached is None else f"{cached:.1%} cached)")
    )


def _errors(summary: Summary) -> str:
    return ", ".join(f"{count} × {status}" for status, count in summary.errors.items())


def _cells(spread: Spread | None) -> list[str]:
    return ["-"] * len(COLUMNS) if spread is None else [duration(getattr(spread, name)) for name in COLUMNS]


def duration(seconds: float) -> str:
    """`12.3 ms`, `1.25 s`"""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
