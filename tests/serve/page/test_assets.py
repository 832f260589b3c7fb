"""The page's files: how they are served, and that they belong together."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from ernie_rt_serve import page
from ernie_rt_serve.access import Keys
from ernie_rt_serve.app import make_app
from ernie_rt_serve.settings import Settings

ASSETS = files("ernie_rt_serve.page").joinpath("assets")
INDEX = ASSETS.joinpath("index.html").read_text("utf-8")
SCRIPTS = {
    file.name: file.read_text("utf-8")
    for file in ASSETS.iterdir()
    if file.name.endswith(".js") and file.name not in ("en.js", "zh.js")
}


def words(language: str) -> dict[str, str]:
    """The table of a language: JSON, after two words of JavaScript. A key that comes twice is an error."""
    text = ASSETS.joinpath(f"{language}.js").read_text("utf-8")
    pairs: list[tuple[str, Any]] = json.loads(text.removeprefix("export default").rstrip(";\n"), object_pairs_hook=list)
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(make_app(None, Settings("m", Keys.of(["secret"]))))


def test_every_file_is_served_with_its_type_and_the_policy(client: TestClient) -> None:
    paths = ["/", *(f"/page/{file.name}" for file in ASSETS.iterdir() if file.name != "index.html")]
    assert {entry.path for entry in page.ENTRIES} == set(paths)
    for path in paths:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == page.TYPES[path[path.rindex(".") :] if "." in path else ".html"]
        assert page.HEADERS.items() <= dict(answer.headers).items()
    for path in ("/page/index.html", "/page/..%2f__init__.py", "/page/"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"x-api-key": "secret"}).status_code == 404


def test_the_policy_allows_nothing_from_outside() -> None:
    sources = re.findall(r"(\S+)-src ([^;]+)", page.HEADERS["content-security-policy"])
    assert dict(sources)["default"] == "'none'"
    assert {source for _, names in sources for source in names.split()} == {"'none'", "'self'", "data:"}


def test_a_file_that_is_known_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/page/main.js").headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        answer = client.get("/page/main.js", headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get("/page/main.js", headers={"if-none-match": '"other"'}).status_code == 200
    assert client.head("/").status_code == 200
    assert client.post("/", headers={"x-api-key": "secret"}).status_code == 405


def test_the_languages_say_the_same_things() -> None:
    english, chinese = words("en"), words("zh")
    assert list(english) == list(chinese) == sorted(english)
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key


def test_the_page_has_no_words_of_its_own() -> None:
    body = INDEX[INDEX.index("<body>") :]
    text = re.sub(r"<[^>]*>", " ", body).split()
    assert text == ["ernie-rt"], "put words into en.js and zh.js, and name them with data-text"
    assert not re.search(r'\s(?:title|alt|placeholder|aria-label)="[^"]', INDEX)
    assert not re.search(r"[\u3000-\u9fff]", "".join(SCRIPTS.values()))


def test_every_word_is_used_and_there() -> None:
    keys = set(words("en"))
    named = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', INDEX))
    assert named <= keys
    scripts = "".join(SCRIPTS.values())
    used = {key for key in keys if f'"{key}"' in scripts} | named
    families = tuple(re.findall(r"`(\w+_)\$\{", scripts))
    assert {key for key in keys - used if not key.startswith(families)} == set()


def test_what_a_model_writes_never_becomes_html() -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|srcdoc|setHTML"
    for name, script in SCRIPTS.items():
        assert not re.search(forbidden, script), name
    assert not re.search(r"<style|<script(?! type=\"module\" src=)|\son\w+=|\sstyle=|https?://|//\w", INDEX)


def test_every_picture_and_file_that_is_named_is_there() -> None:
    named = set(re.findall(r'(?:src|href)="page/([\w.]+)"', INDEX))
    named |= {name for script in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', script)}
    assert named | {"index.html"} == {file.name for file in ASSETS.iterdir()}
    icons = set(re.findall(r'href="#icon-([\w-]+)"', INDEX))
    icons |= {
        name
        for script in SCRIPTS.values()
        for name in re.findall(r'(?:icon|iconButton|setIcon)\((?:\w+, )?"([\w-]+)"', script)
    }
    assert icons <= set(re.findall(r'symbol id="icon-([\w-]+)"', INDEX))


def test_the_pictures_of_the_docs() -> None:
    docs = Path(__file__).parents[3] / "docs"
    named = re.findall(r"images/[\w-]+\.png", (docs / "page.md").read_text())
    assert sum((docs / name).stat().st_size for name in named) < 600 << 10
