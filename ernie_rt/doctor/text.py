"""Put the demo model's tokenizer to texts that it has to give back: what a child process does."""

from __future__ import annotations

from typing import Final

from ernie_rt.conformance.goldens import Goldens
from ernie_rt.location import locate

TEXTS: Final = (
    "How many grams are in 5 kilograms?",
    "5公里等于多少米？",
    "for (int i = 0; i < 10; ++i) {\n\tsum += 1.5e-3;  // naïve\n}",
    "𝔘𝔫𝔲𝔰𝔲𝔞𝔩 🙂 ﷽ \u00a0end",
)


def run() -> list[str]:
    """What is wrong with it, in words."""
    goldens = Goldens.read()
    tokenizer = locate(goldens.model).tokenizer
    returned = {text: tokenizer.decode(tokenizer.encode(text)) for text in TEXTS}
    wrong = [f"{text!r} comes back as {back!r}" for text, back in returned.items() if back != text]
    for golden in goldens.of("plain"):
        ids = list(golden.ids[: golden.prompt])
        text = tokenizer.decode(ids, skip_special=False)
        if tokenizer.encode(text) != ids:
            wrong.append(f"{text[:40]!r} has other ids than it had")
    return wrong
