"""What the trained demo model knows, on any backend, in any dtype and storage.

The share of held-out questions that it answers to the letter (greedily), by task: as they are phrased, written in ways
that training knows and in ways that it never saw, and in the tenth and twentieth turn of a conversation; how often it
says that it does not know what it could; the perplexity of held-out stories and answers; how evenly its experts are
used; and how often its MTP layer (run in PyTorch, in float32) foresees the token after the next of those answers,
beside the likeliest successor of the next one. With --against, how far a
quantised model's predictions lie from those of the one that it was made of:

    python benchmarks/demo_quality.py ./demo-int4 --against demo --backend onnx --dtype float32
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

import ernie_rt
from ernie_rt.conformance.goldens import weights_digest
from ernie_rt.conformance.metrics import kl
from ernie_rt.errors import ErnieRtError, OptionError
from marked import filled, marked, write

sys.path.append(str(Path(__file__).parents[1] / "tools"))

GROUPS: Final = {
    "all": "all",
    "en": "English",
    "zh": "Chinese",
    "known phrasing": "known phrasing",
    "new phrasing": "new phrasing",
    "known ways": "known ways",
    "new ways": "new ways",
    "turn 10": "turn 10",
    "turn 20": "turn 20",
}
HEADER: Final = ("exact match", "items", *GROUPS.values())
SCRIPT: Final = Path(__file__).name


def divergence(
    folder: Path, against: Path, items: int, seed: int, options: Mapping[str, Any]
) -> dict[str, float | int]:
    """The mean Kullback-Leibler divergence of a model's predictions from another's of the same vocabulary, in nats.

    Of the tokens of held-out answers, of stories, three times as many as `items` of each task, and of the questions,
    which training weighs less.
    """
    from demo.batches import Encoder
    from demo.curriculum import EXAMINED, held_out_items
    from demo.quality import held_out_stories

    encoder = Encoder(folder, ernie_rt.locate(folder).config)
    questions = [encoder.chat(item) for task in EXAMINED for item in held_out_items(task, items, seed)]
    documents = [*questions, *held_out_stories(encoder, 3 * items)]
    prompts = [document.ids[:-1] for document in documents]
    found: dict[str, list[Any]] = {"answers": [], "stories": [], "questions": []}
    with (
        ernie_rt.load(folder, max_context=512, max_sequences=16, **options) as model,
        ernie_rt.load(against, max_context=512, max_sequences=16, **options) as other,
    ):
        logits = zip(other.logits_batch(prompts), model.logits_batch(prompts), strict=True)
        for number, (document, pair) in enumerate(zip(documents, logits, strict=True)):
            learned, far = np.array(document.learned[1:]), kl(*pair)
            found["answers" if number < len(questions) else "stories"].append(far[learned])
            found["questions"].append(far[~learned])
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: float(each.mean()) for name, each in joined.items()} | {"tokens": len(joined["answers"])}


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The scores by task, and their averages; a task may have no items in phrasings that training knows."""

    def cells(score: Mapping[str, float]) -> Iterator[str]:
        return (f"{score[group]:.1%}" if group in score else "-" for group in GROUPS)

    scores = report["exact_match"].items()
    return [
        *((task, str(score["items"]), *cells(score)) for task, score in scores),
        ("macro average", str(sum(score["items"] for _, score in scores)), *cells(report["macro_average"])),
    ]


def figures(report: dict[str, Any]) -> list[tuple[str, str]]:
    load, second = report["expert_load"], report["second_token"]
    found = [
        ("weakest", report["weakest"]),
        ("wrongly refused", ", ".join(f"{name} {share:.1%}" for name, share in report["wrongly_refused"].items())),
        ("perplexity", ", ".join(f"{name} {value:.3f}" for name, value in report["perplexity"].items())),
        ("expert load", f"{load['least']:.2f} to {load['most']:.2f} of the fair share"),
    ]
    if second is not None:
        found.append(("second token", f"MTP {second['mtp']:.1%}, bigram {second['bigram']:.1%} of {second['tokens']}"))
    if far := report.get("divergence"):
        told = ", ".join(f"{name} {far[name]:.5f}" for name in ("answers", "stories", "questions"))
        found.append(("divergence", f"{told} nats from {report['against']}, of {far['tokens']} tokens of answers"))
    return found


def table(report: dict[str, Any]) -> str:
    scores = [f"{row[0]:16}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in (HEADER, *rows(report))]
    return "\n".join([subject(report), *scores, *(f"{name:16}{value}" for name, value in figures(report))])


def subject(report: dict[str, Any]) -> str:
    return f"{report['backend']} on {report['device']} in {report['dtype']}"


def page(text: str, report: dict[str, Any], weights: str) -> str:
    """A page with the report between its marks."""
    lines = [f"| {' | '.join(row)} |" for row in (HEADER, ("---",) * len(HEADER), *rows(report))]
    lines += ["", *(f"- {name}: {value}" for name, value in figures(report)), f"- measured with {subject(report)}"]
    return filled(text, SCRIPT, weights, "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo", help="the model's folder; the one that comes along if none")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--items", type=int, default=300, help="questions of each task; --against asks a tenth of them")
    parser.add_argument("--seed", type=int, default=1, help="draws the questions; training looked at some of seed 0")
    parser.add_argument("--against", help="the model that this one was quantised from: how far predictions differ")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    given = parser.parse_args()
    try:
        report_on(given)
    except ErnieRtError as error:
        raise SystemExit(f"error: {error}") from error


def report_on(given: argparse.Namespace) -> None:
    from demo.quality import measure

    if given.items < 1:
        raise OptionError("an examination has questions", where="--items", expected=">= 1", found=given.items)
    text = None if given.page is None else marked(given.page, SCRIPT)
    folder = ernie_rt.locate(given.model).folder
    against = None if given.against is None else ernie_rt.locate(given.against).folder
    assert folder is not None
    options = {"backend": given.backend, "device": given.device, "dtype": given.dtype}
    report = measure(folder, given.items, given.seed, options)
    if against is not None:
        far = divergence(folder, against, max(1, given.items // 10), given.seed, options)
        report |= {"against": given.against, "divergence": far}
    print(json.dumps(report, indent=2) if given.json else table(report))
    if text is not None:
        write(given.page, page(text, report, weights_digest(folder)))


if __name__ == "__main__":
    main()
