"""docs/serving.md: routes, limits, options and metrics are the server's, and its examples are well formed."""

from __future__ import annotations

import configparser
import inspect
import re
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path

import openai
import pytest
import yaml
from starlette.testclient import TestClient

from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.cli.serve import _greeting, serve
from ernie_rt_serve.metrics import PREFIX, Metrics
from ernie_rt_serve.protocols.openai_chat import ChatBody
from ernie_rt_serve.protocols.openai_completions import CompletionBody
from ernie_rt_serve.reading import FREE_CHUNKS, LEAST_CHUNK, MOST_LINES
from ernie_rt_serve.settings import HELD_BODIES, LEAST_HELD_BYTES, MEDIA_BODY_BYTES, TEXT_BODY_BYTES, Settings
from support.dockerfile import parse
from support.pictures import picture, seeing_app, seeing_model
from support.serving import Served, said

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
SETTINGS = Settings("demo")
OF_OTHERS = {
    "build-arg", "cap-drop", "gpus", "profile", "publish", "read-only", "rm", "security-opt", "stop-timeout", "tag",
    "tmpfs", "volume",
}  # fmt: skip
"""Options of Docker."""

Directives = list[tuple[list[str], "Directives | None"]]
"""What nginx and Caddy read: the words of each directive, and its block, if it has one."""


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def directives(text: str, end: str) -> Directives:
    """A configuration whose directives end with `end`; AssertionError where its braces do not match."""
    levels: list[Directives] = [[]]
    words: list[str] = []
    for word in re.findall(rf"{end}|[{{}}](?=\s)|[^\s;]+", text):
        if word == "{":
            levels[-1].append((words, below := []))
            levels.append(below)
            words = []
        elif word in (end, "}"):
            if words:
                levels[-1].append((words, None))
            words = []
            if word == "}":
                levels.pop()
        else:
            words.append(word)
    assert len(levels) == 1 and not words
    return levels[0]


def inside(found: Directives, *words: str) -> Directives:
    (below,) = [below for each, below in found if each == [*words] and below is not None]
    return below


def values(found: Directives) -> dict[str, str]:
    return {" ".join(words[:-1]): words[-1] for words, below in found if below is None}


def test_the_table_of_routes() -> None:
    rows = re.findall(r"^\| `(GET|POST) (/[^`]*)`[^|]*\| (anybody|who has a key)", PAGE, re.MULTILINE)
    told = {(method, path): who for method, path, who in rows}
    for entry in ENTRIES:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", entry.path)
        if not path.startswith("/page/"):  # the page's own files
            assert told[entry.method, path] == ("anybody" if entry.access == "public" else "who has a key"), path


def test_the_limits() -> None:
    for told in (
        f"headers | {SETTINGS.header_bytes >> 10} KiB, {MOST_LINES} lines, and {SETTINGS.header_seconds:g} s",
        f"chunks of a body | {FREE_CHUNKS:,}, or more that have {LEAST_CHUNK} bytes",
        f"body | {TEXT_BODY_BYTES >> 20} MiB, or {MEDIA_BODY_BYTES >> 20} MiB where the model sees",
        f"{SETTINGS.body_seconds:g} s until it is there, and longer while more than {SETTINGS.body_rate >> 10} KiB a",
        f"{LEAST_HELD_BYTES >> 20} MiB together, or {HELD_BODIES * MEDIA_BODY_BYTES >> 20} MiB where the model sees",
        f"{SETTINGS.most_attachments} in a request",
        f"JSON | {SETTINGS.json_depth} levels",
        f"next to nothing is read for {SETTINGS.stall_seconds:g} s",
        f"`--drain-seconds`, {SETTINGS.drain_seconds:g} when not given",
    ):
        assert told in PAGE, told


def test_the_options() -> None:
    known = inspect.signature(serve).parameters
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)", PAGE)) - OF_OTHERS
    assert {name.replace("-", "_") for name in named} <= known.keys()
    for option, default in (("max_sequences", "8"), ("max_queue", "64"), ("queue_seconds", "no limit")):
        assert f"| `--{option.replace('_', '-')}` | {default} |" in PAGE
        assert str(known[option].default) == default.replace("no limit", "None")


def test_the_fields() -> None:
    (table,) = re.findall(r"^\| field \| \|\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    of_completions = set(CompletionBody.__struct_fields__)
    assert named <= set(ChatBody.__struct_fields__) and named - of_completions == {
        "reasoning_effort",
        "thinking_budget",
    }


def test_what_it_shows_first(server: Served, capsys: pytest.CaptureFixture[str]) -> None:
    shown = "\n".join(_greeting(("127.0.0.1", 8000), keys=False, chats=True))
    assert f"serving demo on onnx, cpu, float32\n{shown}\n" in PAGE
    here = PAGE.partition("\n## ")[0].replace("http://127.0.0.1:8000", server.url)
    (program,) = re.findall(r"^```python\n(.*?)^```$", here, re.MULTILINE | re.DOTALL)
    exec(program, {})
    assert capsys.readouterr().out == "5 kilograms = 5000 grams\n"
    if shutil.which("curl") is None or shutil.which("jq") is None:
        pytest.skip("the page uses curl and jq")
    ((command, answer),) = re.findall(r"^\$ (curl [^`]*? jq [^\n]*)\n([^`]*)^```$", here, re.MULTILINE)
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == answer


def test_what_it_shows_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (section,) = re.findall(r"^## Pictures and videos\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "receipt.png").write_bytes(picture())
    with seeing_model(tmp_path / "seeing") as model:
        app, served = seeing_app(model, said("12.50"), settings=Settings("ernie"))
        client = TestClient(app, "http://127.0.0.1:8000")
        monkeypatch.setattr(openai, "OpenAI", partial(openai.OpenAI, http_client=client))
        exec(program, {})
    ((_, item),) = served.asked[0].prompt.items
    assert item.tokens == 4
    assert capsys.readouterr().out == "12.50\n"


def test_the_metrics() -> None:
    named = set(re.findall(rf"`{PREFIX}(\w+)`", PAGE))
    told_at_once = {metric.name.removeprefix(PREFIX) for metric in Metrics("demo").registry.collect()}
    told_of_an_engine = set(re.findall(r'\("(\w+)", "[A-Z]', inspect.getsource(Metrics.collect)))
    assert {name.removesuffix("_total") for name in named} == told_at_once | told_of_an_engine


def test_prometheus() -> None:
    (job,) = yaml.safe_load(block("yaml"))["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8000"]}] and "credentials_file" in job["authorization"]


def test_nginx() -> None:
    server = inside(directives(block("nginx"), ";"), "server")
    assert values(server)["client_max_body_size"] == f"{TEXT_BODY_BYTES >> 20}m"
    passed = values(inside(server, "location", "/"))
    assert passed["proxy_buffering"] == "off" and passed["gzip"] == "off"
    assert passed["proxy_pass"] == "http://127.0.0.1:8000" and passed["proxy_http_version"] == "1.1"
    assert inside(server, "location", "~", "^/(metrics|stats)$") == [(["return", "404"], None)]


def test_caddy() -> None:
    site = inside(directives(block("caddyfile"), "\n"), "ernie.example.org")
    assert values(inside(site, "request_body")) == {"max_size": f"{TEXT_BODY_BYTES >> 20}MiB"}
    proxy = inside(site, "reverse_proxy", "127.0.0.1:8000")
    limits = inside(proxy, "transport", "http")
    assert limits == [(["response_header_timeout", "10m"], None), (["keepalive", "60s"], None)]
    assert not [words for words, _ in proxy if words[0] == "flush_interval"]


def test_the_unit(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(block("ini"))
    program, command, *arguments = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, command) == ("ernie-rt", "serve") and "%d/api_keys" in arguments
    assert unit.getint("Service", "TimeoutStopSec") >= SETTINGS.drain_seconds + 5
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("no systemd here")
    path = tmp_path / "ernie-rt.service"
    path.write_text(block("ini").replace(program, "/bin/true"))
    told = subprocess.run([verify, "verify", path], capture_output=True, text=True).stderr
    assert "ernie-rt.service:" not in told, told


def test_the_container() -> None:
    shown = next(text for text in re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S) if "docker run" in text)
    words = shlex.split(shown.partition("docker run")[2].replace("\\\n", " "))
    mounts = [words[place + 1].split(":")[1] for place, word in enumerate(words) if word == "--volume"]
    assert mounts == [*parse(DOCKERFILE)[-1].all("VOLUME")[0].arguments, "/run/secrets/api_keys"]
    assert words[words.index("--api-key-file") + 1] == mounts[-1] and "--read-only" in words
    assert int(words[words.index("--stop-timeout") + 1]) >= SETTINGS.drain_seconds + 5
    told = re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)
    assert set(told) == set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
