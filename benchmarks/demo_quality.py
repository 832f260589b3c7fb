"""What the trained demo model knows, on any backend, in any dtype and storage.

The share of held-out questions that it answers to the letter (greedily), by task; the perplexity of held-out stories
and answers; how evenly its experts are used; and how often its MTP layer foresees the token after the next, beside
the likeliest successor of the next one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tools"))


def table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['backend']} on {report['device']} in {report['dtype']}",
        f"{'exact match':14}{'items':>8}{'all':>9}{'English':>9}{'Chinese':>9}{'known':>9}{'new phrasing':>14}",
    ]
    for task, score in report["exact_match"].items():
        shares = "".join(f"{score.get(key, float('nan')):9.1%}" for key in ("all", "en", "zh", "known phrasing"))
        lines.append(f"{task:14}{score['items']:8}{shares}{score['new phrasing']:14.1%}")
    load, second = report["expert_load"], report["second_token"]
    return "\n".join(
        [
            *lines,
            f"macro average  {report['macro_average']:.1%}, weakest {report['weakest']}",
            "perplexity     " + ", ".join(f"{name} {value:.3f}" for name, value in report["perplexity"].items()),
            f"expert load    {load['least']:.2f} to {load['most']:.2f} of the fair share",
            f"second token   MTP {second['mtp']:.1%}, bigram {second['bigram']:.1%} of {second['tokens']}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder of the demo model")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--items", type=int, default=300, help="questions of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from demo.quality import measure

    options = {"backend": given.backend, "device": given.device, "dtype": given.dtype}
    report = measure(given.model, given.items, given.seed, options)
    print(json.dumps(report, indent=2) if given.json else table(report))


if __name__ == "__main__":
    main()
