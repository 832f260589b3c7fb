"""Encoding and decoding against transformers, on the same tokenizer files and one megabyte of mixed text.

The text is Python's own library, which has few words in common with a training corpus, and as much Chinese with rare
characters and digits. Each is timed as the best of several runs; the ids must be equal.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ernie_rt.modeling.config import read_config
from ernie_rt.text.tokenizer import Tokenizer


def mixed_text(size: int) -> str:
    """About `size` bytes: half English and code, half Chinese with digits."""
    rng = random.Random(0)
    code = "".join(path.read_text() for path in sorted(Path(json.__file__).parent.parent.glob("[a-h]*.py")))
    phrases = ["你好世界", "今天天气很好", "人工智能", "可以帮助人们", "请问这个问题怎么解决", "模型的输出是"]
    parts: list[str] = []
    done = 0
    while done < size:
        start = rng.randrange(len(code) - 400)
        parts.append(code[start : start + 400])
        numbers = [str(rng.random()) for _ in range(12)]
        parts += [f"{rng.choice(phrases)}{chr(rng.randrange(0x4E00, 0x9FA5))}，{number}" for number in numbers]
        parts.append("🙂\n")
        done += sum(len(part.encode()) for part in parts[-14:])
    return "".join(parts)


def best(run: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """Seconds of the quickest of `repeat` runs, and what it returned."""
    seconds = float("inf")
    result = None
    for _ in range(repeat):
        began = time.perf_counter()
        result = run()
        seconds = min(seconds, time.perf_counter() - began)
    return seconds, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder with config.json and tokenizer files")
    parser.add_argument("--bytes", type=int, default=1 << 20)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    import transformers

    ours = Tokenizer.load(options.folder, read_config(options.folder))
    theirs = transformers.LlamaTokenizer.from_pretrained(options.folder)
    text = mixed_text(options.bytes)
    encode, ids = best(lambda: ours.encode(text), options.repeat)
    their_encode, their_ids = best(lambda: theirs.encode(text, add_special_tokens=False), options.repeat)
    decode, decoded = best(lambda: ours.decode(ids), options.repeat)
    their_decode, their_text = best(lambda: theirs.decode(ids), options.repeat)
    report = {
        "bytes": len(text.encode()),
        "tokens": len(ids),
        "equal": ids == their_ids and decoded == their_text == text,
        "encode_seconds": encode,
        "transformers_encode_seconds": their_encode,
        "decode_seconds": decode,
        "transformers_decode_seconds": their_decode,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
