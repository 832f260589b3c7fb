"""What demo-vl knows: the share of questions about pictures that training never saw which it answers to the letter.

Each question is asked alone, greedily, with its pictures, through ernie_rt, and every third one again in a phrasing
that training never saw:

    python benchmarks/demo_vl_quality.py --backend onnx --dtype float32
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

import ernie_rt
from ernie_rt.conformance.goldens import weights_digest
from ernie_rt.errors import ErnieRtError, OptionError
from marked import filled, marked, write

if TYPE_CHECKING:
    from demo_vl.examination import Item

sys.path.append(str(Path(__file__).parents[1] / "tools"))

GROUPS: Final = ("all", "English", "Chinese", "picture first", "question first", "new phrasing")
HEADER: Final = ("exact match", "items", *GROUPS)
MAX_ANSWER: Final = 32
AGAIN: Final = 3
"""One in so many questions is asked again."""
SCRIPT: Final = Path(__file__).name


def ask(model: ernie_rt.Model, item: Item, prompt: str) -> str:
    """The model's answer to an item's question, in these words, that comes with its pictures."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": image} for image in item.images()]
    text = {"type": "text", "text": prompt}
    content = [*parts, text] if item.talk.pictures_first else [text, *parts]
    return model.chat([{"role": "user", "content": content}], temperature=0.0, max_new_tokens=MAX_ANSWER).text


def groups(item: Item) -> tuple[str, ...]:
    """The columns that a question counts in."""
    return (
        "all",
        "Chinese" if item.language == "zh" else "English",
        "picture first" if item.talk.pictures_first else "question first",
    )


def measure(model: ernie_rt.Model, count: int, seed: int) -> dict[str, Any]:
    from demo_vl.examination import EXAMINED, held_out_items

    scores: dict[str, dict[str, float]] = {}
    wrong: dict[str, list[dict[str, str]]] = {}
    for task in EXAMINED:
        marks: dict[str, list[bool]] = collections.defaultdict(list)
        wrong[task] = []
        for number, item in enumerate(held_out_items(task, count, seed)):
            if number % AGAIN == 0:
                marks["new phrasing"].append(ask(model, item, item.new_phrasing) == item.turn.answer)
            answer = ask(model, item, item.turn.prompt)
            for group in groups(item):
                marks[group].append(answer == item.turn.answer)
            if answer != item.turn.answer:
                wrong[task].append({"asked": item.turn.prompt, "expected": item.turn.answer, "answered": answer})
        scores[task] = {"items": count, **{group: mean(marks[group]) for group in GROUPS if group in marks}}
    average = {group: mean(score[group] for score in scores.values() if group in score) for group in GROUPS}
    choice = model.choice
    return {
        "backend": choice.backend, "device": choice.device, "dtype": choice.dtype,
        "exact_match": scores, "macro_average": average, "wrong": wrong,
    }  # fmt: skip


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    def cells(score: dict[str, float]) -> list[str]:
        return [f"{score[group]:.1%}" if group in score else "-" for group in GROUPS]

    scores = report["exact_match"]
    total = sum(score["items"] for score in scores.values())
    return [
        *((task, str(score["items"]), *cells(score)) for task, score in scores.items()),
        ("macro average", str(total), *cells(report["macro_average"])),
    ]


def subject(report: dict[str, Any]) -> str:
    return f"{report['backend']} on {report['device']} in {report['dtype']}"


def table(report: dict[str, Any], wrong: int) -> str:
    lines = [f"{row[0]:16}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in (HEADER, *rows(report))]
    for task, answers in report["wrong"].items():
        lines += [f"{task}: {each['asked']} {each['answered']} (not {each['expected']})" for each in answers[:wrong]]
    return "\n".join([subject(report), *lines])


def page(text: str, report: dict[str, Any], weights: str) -> str:
    """A page with the report between its marks."""
    lines = [f"| {' | '.join(row)} |" for row in (HEADER, ("---",) * len(HEADER), *rows(report))]
    return filled(text, SCRIPT, weights, "\n".join([*lines, "", f"- measured with {subject(report)}"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default="demo-vl", help="the model's folder; the one that comes along if none"
    )
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--items", type=int, default=200, help="questions of each task")
    parser.add_argument("--seed", type=int, default=1, help="draws the questions; training looked at some of seed 0")
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers of each task")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its marks")
    given = parser.parse_args()
    try:
        report_on(given)
    except ErnieRtError as error:
        raise SystemExit(f"error: {error}") from error


def report_on(given: argparse.Namespace) -> None:
    if given.items < 1:
        raise OptionError("an examination has questions", where="--items", expected=">= 1", found=given.items)
    text = None if given.page is None else marked(given.page, SCRIPT)
    located = ernie_rt.locate(given.model)
    options = {"backend": given.backend, "device": given.device, "dtype": given.dtype}
    with ernie_rt.load(located, max_context=512, **options) as model:
        report = measure(model, given.items, given.seed)
    print(json.dumps(report, indent=2, ensure_ascii=False) if given.json else table(report, given.wrong))
    if text is not None:
        assert located.folder is not None
        write(given.page, page(text, report, weights_digest(located.folder)))


if __name__ == "__main__":
    main()
