"""Make the pictures of docs/page.md and docs/conformance.md, in docs/images, with Chromium.

    python tools/screenshots.py [NAME …]

What the model says on the page is written down here, and so are the figures of the server: they show the page, and no
speed of any machine. The answer about a picture is demo-vl's own. The report is a real one, of the backend onnx on this
machine. Letters look as the fonts of this
machine do; Chinese needs one that has it.
"""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from PIL import Image, ImageDraw

from browser import Browser, Page, browser, chromium
from ernie_rt.conformance.report_page import report_html
from ernie_rt.conformance.suite import Suite
from ernie_rt.html import write_page
from page_server import Answer, ScriptedServer

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
MODEL: Final = "ERNIE-4.5-21B-A3B-Thinking"
FASTER: Final = """
const clock = performance.now.bind(performance), later = setTimeout;
performance.now = () => 20 * clock();
window.setTimeout = (then, wait) => later(then, wait / 20);
"""
ENGLISH: Final = """\
A **mixture of experts** sends each token to a few of its many networks, so a large model computes like a small one:

1. A *router* scores every expert for the token.
2. The best few are chosen. A bias takes part in choosing, so that all experts keep busy.
3. Their outputs are added, weighed by the scores without the bias.

| model | parameters | used per token | layers |
| --- | ---: | ---: | ---: |
| 0.3B | 361 M | 361 M | 18 |
| 21B-A3B | 21.8 B | 3.35 B | 28 |
| 300B-A47B | 299 B | 47.9 B | 54 |

In NumPy:

```python
def route(scores, bias, active):
    chosen = np.argsort(-(scores + bias))[:active]
    weights = scores[chosen] / scores[chosen].sum()
    return chosen, weights
```
"""
CHINESE: Final = """\
可以这样安排周末的**杭州两日游**：

1. **第一天**：上午沿西湖白堤散步，下午去灵隐寺，傍晚登宝石山看日落。
2. **第二天**：早上逛龙井村、喝新茶，午后参观中国丝绸博物馆。

| 时间 | 地点 | 大约费用 |
| --- | --- | ---: |
| 周六上午 | 西湖、白堤 | 免费 |
| 周六下午 | 灵隐寺 | 75 元 |
| 周日上午 | 龙井村 | 60 元 |

> 周末人多，灵隐寺最好提前预约。
"""
PHONE: Final = """\
Boil them for **6 to 7 minutes** from the moment the water bubbles again:

- 6 minutes: soft in the middle
- 7 minutes: like honey
- 10 minutes: firm

Then put them into *cold water* for a minute. They peel more easily.
"""


def answer(text: str, thoughts: str = "", cached: int = 0, prompt: int = 12) -> Answer:
    """A text cut into what could be tokens."""
    pieces: list[Any] = [{"reasoning_content": piece} for piece in re.findall(r"\S+\s*", thoughts)]
    pieces += re.findall(r"[\u3000-\uffef]{1,2}|[^\s\u3000-\uffef]+\s*|\s+", text)
    return Answer(pieces, pause=0.004, cached=cached, prompt=prompt)


def talk(page: Page, server: ScriptedServer, *turns: tuple[str, Answer]) -> None:
    """A conversation, each turn of which has ended."""
    for question, reply in turns:
        server.script.append(reply)
        page.click("#message")
        page.type(question)
        page.press("Enter")
        page.wait("document.querySelector('#thread .answer:last-child footer button')")


def others(page: Page, server: ScriptedServer, *questions: str) -> None:
    """Earlier conversations, for the list of them."""
    for question in questions:
        talk(page, server, (question, answer("Yes.")))
        page.click("#new-chat")


def keep(page: Page, name: str) -> None:
    page.evaluate("document.activeElement.blur(); new Promise((done) => setTimeout(done, 400))")
    (FOLDER / f"{name}.png").write_bytes(page.screenshot())
    page.close()


def chat_in_english(program: Browser, server: ScriptedServer) -> None:
    page = program.open(server.url, width=1280, height=960)
    others(page, server, "Plan a week of dinners", "Why is the sky blue?", "A regex for dates")
    thoughts = "The user wants the idea and the code. A short list, the numbers of the family, then NumPy."
    talk(page, server, ("What is a mixture of experts?", answer(ENGLISH, thoughts, cached=96, prompt=118)))
    keep(page, "page-chat")


def chat_in_chinese(program: Browser, server: ScriptedServer) -> None:
    page = program.open(server.url, width=1280, height=800, language="zh-CN", scheme="dark")
    others(page, server, "帮我改一封邮件", "什么是混合专家模型？", "写一首关于秋天的诗")
    talk(page, server, ("周末想去杭州玩两天，怎么安排？", answer(CHINESE, "先按天分，再列费用。", prompt=24)))
    page.click("#open-settings")
    keep(page, "page-chinese-dark")


def chat_on_a_phone(program: Browser, server: ScriptedServer) -> None:
    page = program.open(server.url, width=390, height=780, phone=True, scale=1.5)
    talk(page, server, ("How long do I boil eggs?", answer(PHONE, prompt=17)))
    keep(page, "page-phone")


def state_of_the_server(program: Browser, server: ScriptedServer) -> None:
    """Five minutes of a server at work, which take 15 seconds: the page's clock goes faster."""
    rng = random.Random(4)
    written, read = 48_000, 183_000
    for step in range(100):
        load = 0.55 + 0.3 * math.sin(step / 13) + 0.1 * math.sin(step / 3.1)
        written += round(210 * load * (0.9 + 0.2 * rng.random()))
        read += round(900 * load * (0.2 + 0.8 * rng.random()))
        running = round(16 * load + 2 * rng.random())
        change = {
            "backend": "onnx", "device": "cpu", "dtype": "float32", "max_context": 32768,
            "requests_running": min(running, 13), "requests_waiting": max(0, running - 13),
            "cache_usage": 0.2 + 0.55 * load, "prefix_cache_hit_rate": 0.62, "prompt_tokens_total": read,
            "preemptions_total": 3, "generation_tokens_total": written, "uptime_seconds": 94_000.0 + 3 * step,
            "time_to_first_token_seconds": {"p50": 0.84, "p95": 3.1},
            "time_per_output_token_seconds": {"p50": 0.162, "p95": 0.217},
        }  # fmt: skip
        server.history.append(change)
    page = program.open(server.url, width=1280, height=900, script=FASTER)
    page.click("#server-tab")
    while server.history:
        time.sleep(0.1)
    keep(page, "page-server")


def chat_about_a_picture(program: Browser, _: ScriptedServer) -> None:
    with TemporaryDirectory() as folder, served("demo-vl") as url:
        scene = Image.new("RGB", (448, 336), "white")
        draw = ImageDraw.Draw(scene)
        draw.ellipse((48, 96, 192, 240), fill="#d02020")
        draw.rectangle((256, 96, 400, 240), fill="#2040d0")
        scene.save(path := Path(folder, "shapes.png"))
        page = program.open(url, width=1280, height=800)
        page.wait("!document.querySelector('#attach').hidden")
        page.choose("#file", path)
        page.wait("document.querySelector('#tray img')?.complete")
        page.click("#message")
        page.type("What colour is the square?")
        page.press("Enter")
        page.wait("document.querySelector('#thread .answer:last-child footer button')")
        keep(page, "page-picture")


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """Where a server is that was started so, until the end of the block."""
    command = (sys.executable, "-m", "ernie_rt", "serve", *arguments, "--port", "0")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            yield next(found[0] for line in lines if (found := re.search(r"http://[\d.:]+\d", line)))
        finally:
            process.terminate()


def report(program: Browser, server: ScriptedServer) -> None:
    suite = Suite("onnx")
    told, drift = suite.run().to_json(), suite.drift()
    with TemporaryDirectory() as folder:
        write_page(path := Path(folder, "report.html"), "Conformance of onnx", report_html(told, drift))
        page = program.open(path.as_uri(), width=1120, height=1200)
        page.call("Emulation.setScrollbarsHidden", hidden=True)
        keep(page, "conformance")


PICTURES: Final = {
    "page-chat": chat_in_english,
    "page-chinese-dark": chat_in_chinese,
    "page-phone": chat_on_a_phone,
    "page-server": state_of_the_server,
    "page-picture": chat_about_a_picture,
    "conformance": report,
}


def main(names: Sequence[str]) -> None:
    path = chromium()
    if path is None:
        sys.exit("no Chromium on this machine: install one, such as Debian's package chromium")
    FOLDER.mkdir(exist_ok=True)
    for picture in [PICTURES[name] for name in names or PICTURES]:
        with browser(path) as program, ScriptedServer(MODEL) as server:
            server.defaults = {"temperature": 0.8, "top_p": 0.8, "repetition_penalty": 1.0, "max_tokens": 2048}
            picture(program, server)


if __name__ == "__main__":
    main(sys.argv[1:])
