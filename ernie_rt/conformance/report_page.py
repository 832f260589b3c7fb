"""A run of the conformance suite as a page, such as a vendor would publish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ernie_rt.conformance.chart import drift_chart
from ernie_rt.conformance.drift import Drift
from ernie_rt.html import facts, figure, table, verdict

Json = Mapping[str, Any]

LEVELS: Final[Mapping[str, tuple[str, str]]] = {
    "L0": ("What it says of itself", "Devices, dtypes, limits and memory are as announced, and nothing heavy is "
           "imported to ask for them."),
    "L1": ("Single operations", "Each operation alone, on odd sizes, ties and extreme values, beside float64."),
    "L2": ("Whole models", "Small models of every kind, dense and with experts: all logits, the choice of experts, and "
           "the tokens of greedy answers."),
    "L3": ("What must not change an answer", "A prompt in chunks or at once, alone or beside others, after sequences "
           "that were cancelled, in rows of the cache that others have left."),
    "L4": ("Logits of trained weights", "A trained mixture of experts on questions, plain text and long contexts, "
           "beside what float64 says of it."),
    "L5": ("Answers of trained weights", "Its greedy answers, in English and Chinese, token by token."),
}  # fmt: skip
STATUSES: Final[Mapping[str, str]] = {
    "passed": "passed",
    "failed": "failed",
    "xpassed": "passed, though declared to fail",
    "xfailed": "failed, as declared",
    "skipped": "skipped",
}
ATTENTION: Final = ("failed", "xpassed", "xfailed", "skipped", "passed")
"""Of checks, those that need attention first."""
BAD: Final = ("failed", "xpassed")
FEATURES: Final[Mapping[str, str]] = {
    "ops": "single operations",
    "moe": "mixtures of experts",
    "biases": "models with biases",
    "batches": "several sequences at once",
    "taps": "values from inside the model",
    "vision": "pictures and videos",
    "deterministic": "the same bits each time",
}
TRAINED: Final[Mapping[str, str]] = {
    "positions": "positions",
    "error": "error",
    "noise": "noise",
    "kl": "divergence, nats",
    "kl_plain": "from unquantised, nats",
    "top1": "same best token",
    "excused": "excused",
    "match": "tokens before a difference",
    "length": "of",
    "ties": "ties",
}
"""The figures of levels 4 and 5, and what they are called."""


def report_html(report: Json, drift: Drift | None = None, about: Iterable[tuple[str, Any]] = ()) -> str:
    """What `Report.to_json` gives: the verdict, the drift plot of the backend where there is one, the levels, then
    every check, those that need attention first. `about` says more of the run, in names and values."""
    subject = report["subject"]
    results = sorted(report["results"], key=lambda result: ATTENTION.index(result["status"]))
    plot = ""
    if drift is not None:
        plot = (
            f"<h2>Distance from float64, layer by layer</h2>\n{drift_chart(drift.sides[:1])}\n"
            "<p>A trained model reads a prompt and goes on. A sound backend stays near the dashed line.</p>\n"
        )
    return (
        f"{_verdict(report)}\n{plot}<h2>Levels</h2>\n{_levels(report['levels'])}\n"
        f"<h2>What was tested</h2>\n{facts([*_subject(report), *about])}\n"
        f"{_promised(subject)}{_declared(subject.get('declared', {}))}{_trained(report['results'])}"
        f"{_ops(report['ops'])}{_checks(results)}"
    )


def _verdict(report: Json) -> str:
    counts = {status: sum(level[status] for level in report["levels"].values()) for status in STATUSES}
    told = ", ".join(f"{counts[status]} {word}" for status, word in STATUSES.items() if counts[status])
    return verdict(report["ok"], "conforms" if report["ok"] else "does not conform", told or "no check ran")


def _levels(levels: Json) -> str:
    return f'<div class="levels">\n{chr(10).join(_level(name, level) for name, level in levels.items())}\n</div>'


def _level(name: str, level: Json) -> str:
    title, meaning = LEVELS[name]
    counts = ", ".join(f"{level[status]} {word}" for status, word in STATUSES.items() if level[status]) or "no checks"
    bad = any(level[status] for status in BAD)
    share = ""
    if (margin := level["margin"]) is not None:
        share = (
            f'<meter min="0" max="1" low="0.75" high="1" optimum="0" value="{min(margin, 1.0):.3f}"></meter>\n'
            f"<p>The check nearest to its limit reached {margin:.0%} of it.</p>\n"
        )
    mark = "bad" if bad else "good"
    return (
        f'<article><h3>{name} · {title}</h3>\n<p>{meaning}</p>\n<p class="counts"><b class="{mark}">{counts}</b></p>\n'
        f"{share}</article>"
    )


def _subject(report: Json) -> list[tuple[str, Any]]:
    subject, machine = report["subject"], report["machine"]
    numerics = subject.get("numerics")
    taken = [
        f"{stored} is taken {'as it is' if as_is else 'as numbers'}"
        for stored, as_is in subject.get("accepts", {}).items()
    ]
    setting = {"full": "full: at least 16,000 positions", "quick": "quick: several hundred positions"}
    return [
        ("backend", subject.get("backend")),
        ("what it is", subject.get("summary")),
        ("versions", ", ".join(subject.get("versions", ()))),
        ("device", subject.get("device")),
        ("dtype", subject.get("dtype")),
        ("weights", "; ".join([subject["storage"], *taken]) if "storage" in subject else None),
        ("model", subject.get("model") or "the suite's micro-models, and the demo model of ernie-rt"),
        ("setting", setting.get(subject.get("setting", ""))),
        ("arithmetic", None if numerics is None else _arithmetic(numerics)),
        ("ernie-rt", report["ernie_rt"]),
        ("machine", f"{machine['processor']}, {machine['system']}, Python {machine['python']}"),
        ("date", report["date"]),
    ]


def _arithmetic(numerics: Json) -> str:
    """`products in bfloat16, sums in float32; moe_route: products and sums in float32`"""
    rules = {"": numerics, **numerics["ops"]}
    groups: dict[str, list[str]] = {}
    for op, rule in rules.items():
        same = rule["compute"] == rule["accumulate"]
        said = f"products {'and sums ' if same else ''}in {rule['compute']}"
        said += "" if same else f", sums in {rule['accumulate']}"
        said += ", activations rounded to int8 where they meet a quantised weight" if rule["activations"] else ""
        groups.setdefault(said, []).append(op)
    told = [", ".join(filter(None, ops)) for ops in groups.values()]
    return "; ".join(f"{names}: {said}" if names else said for names, said in zip(told, groups, strict=True))


def _promised(subject: Json) -> str:
    features = subject.get("features")
    if not features:
        return ""
    rows = [[FEATURES.get(name, name), "yes" if promised else "not promised"] for name, promised in features.items()]
    return f"<h2>What it promises</h2>\n{table(['beyond dense models, one sequence at a time', ''], rows)}\n"


def _declared(declared: Json) -> str:
    kinds = {"quirks": "wider limit", "xfails": "known to fail", "skips": "not run"}
    rows = [
        [kind + (f", {entry['factor']:g} times" if name == "quirks" else ""), entry["check"], entry["reason"]]
        for name, kind in kinds.items()
        for entry in declared.get(name, ())
    ]
    return f"<h2>Declared deviations</h2>\n{table(['', 'checks', 'reason'], rows)}\n" if rows else ""


def _trained(results: Sequence[Json]) -> str:
    """What was measured on trained weights: how far logits diverge, and how long answers are those of float64."""
    measured = [r for r in results if r["level"] in ("L4", "L5") and r["figures"]]
    known = [name for name in TRAINED if any(name in r["figures"] for r in measured)]
    rows = [[r["check"], *(figure(r["figures"].get(name)) for name in known)] for r in measured]
    if not rows:
        return ""
    return f"<h2>Trained weights</h2>\n{table(['check', *(TRAINED[name] for name in known)], rows)}\n"


def _ops(routes: Mapping[str, str]) -> str:
    if not routes:
        return ""
    native = sum(route == "native" for route in routes.values())
    return (
        f"<h2>Operations</h2>\n<p>{native} of {len(routes)} run natively, in one go; the others as the smaller "
        f"operations that they are made of.</p>\n<details><summary>Each operation</summary>\n"
        f"{table(['operation', 'runs'], [list(each) for each in routes.items()])}\n</details>\n"
    )


def _checks(results: Sequence[Json]) -> str:
    rows = [
        [r["status"], r["check"], figure(r["figures"].get("margin")), r["route"], f"{r['seconds']:.2f}", r["reason"]]
        for r in results
    ]
    bad = [r["status"] in BAD for r in results]
    header = ["status", "check", "of its limit", "runs", "seconds", "reason"]
    return (
        f"<h2>Checks</h2>\n<p>Limits follow from the arithmetic that the backend declares: a few times the error that "
        f"rounding as declared makes of the same numbers. Above 1 a check fails.</p>\n"
        f"<details{' open' if any(bad) else ''}><summary>All {len(results)} checks</summary>\n"
        f"{table(header, rows, bad)}\n</details>"
    )
