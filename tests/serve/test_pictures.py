"""Pictures and videos in requests: what a model is shown, and what of them is refused."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import itertools
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import numpy as np
import openai
import pytest
from PIL import Image
from starlette.applications import Starlette

from ernie_rt import Model
from ernie_rt.errors import MediaError
from ernie_rt.vision.decoding import Decoding
from ernie_rt.vision.item import Item
from ernie_rt_serve import decoding
from ernie_rt_serve.access import Keys
from ernie_rt_serve.attachments import LOW, STEP, Attachment
from ernie_rt_serve.settings import Settings
from support.held_up import until
from support.media import video
from support.pictures import blank, kept_workers, picture, seeing_app, seeing_model, uri
from support.serving import ScriptedModel, ask, run, said, scripted_app, serving

CHAT = "/v1/chat/completions"
PNG = picture()
"""Of 2 by 2 tokens."""


def shown(url: str = "", text: str = "What is this?", **fields: Any) -> dict[str, Any]:
    """A request of one picture, then a text."""
    content = [{"type": "image_url", "image_url": {"url": url or uri(PNG)} | fields}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}]}


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    with kept_workers():
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with seeing_model(tmp_path_factory.mktemp("seeing")) as model:
        yield model


def items(served: ScriptedModel, number: int = -1) -> list[Item]:
    """What a prompt shows."""
    return [item for _, item in served.asked[number].prompt.items]


def text(served: ScriptedModel, model: Model) -> str:
    """What the last prompt says, a picture as [tokens]."""
    ids, parts, last = served.asked[-1].prompt.ids, [], 0
    for start, item in served.asked[-1].prompt.items:
        parts += [model.tokenizer.decode(ids[last:start]), f"[{item.tokens}]"]
        last = start + item.tokens
    return "".join(parts) + model.tokenizer.decode(ids[last:])


def test_what_a_chat_shows(model: Model) -> None:
    async def body() -> None:
        app, served = seeing_app(model, said("a"))
        asked = shown()
        asked["messages"][0]["content"].append({"type": "image_url", "image_url": {"url": uri(picture(84, 56))}})
        asked["messages"] += [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
        reply = await ask(app, "POST", CHAT, asked)
        assert reply.json["choices"][0]["message"]["content"] == "a"
        assert re.sub(r"\s*(<[^>]*>)*\s*", "", text(served, model)) == (
            "User:Picture1:[4]Whatisthis?Picture2:[6]Assistant:Acat.User:Sure?Assistant:"
        )
        first, second = items(served)
        assert np.array_equal(first.frames[0], np.asarray(Image.open(io.BytesIO(PNG)))) and second.merged == (1, 2, 3)
        tokens = len(served.asked[0].prompt.ids)
        assert reply.json["usage"]["prompt_tokens"] == tokens
        assert (await ask(app, "POST", "/tokenize", {"messages": asked["messages"]})).json["count"] == tokens
        metrics = (await ask(app, "GET", "/metrics")).body.decode()
        assert 'ernie_rt:media_items_total{kind="image",model_name="demo"} 4.0' in metrics
        assert app.state.service.held == 0

    run(body)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_formats(model: Model, format: str) -> None:
    async def body() -> None:
        app, served = seeing_app(model, said("a"))
        url = uri(picture(format=format), f"data:image/{format.lower()};base64,")
        assert (await ask(app, "POST", CHAT, shown(url))).status == 200
        assert [item.tokens for item in items(served)] == [4]

    run(body)


def test_details(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        app, served = seeing_app(model, *[said("a")] * 6)
        url = uri(blank(28 * 20, 28 * 20))
        for detail, tokens in (("low", 256), ("high", 400), ("auto", 400), ("original", 400)):
            assert (await ask(app, "POST", CHAT, shown(url, detail=detail))).status == 200
            assert [item.tokens for item in items(served)] == [tokens]
        assert LOW == 256 * 28 * 28
        monkeypatch.setattr(model.reader, "max_pixels", 100 * 28 * 28)
        for detail in ("high", "low"):
            assert (await ask(app, "POST", CHAT, shown(uri(blank(28 * 30, 28 * 30)), detail=detail))).status == 200
            assert [item.tokens for item in items(served)] == [100], "low is never more than high"
        reply = await ask(app, "POST", CHAT, shown(url, detail="tiny"))
        assert reply.status == 400 and reply.error["param"] == "messages[0].content[0].image_url.detail"

    run(body)


@pytest.mark.parametrize(
    "head",
    ["data:image/png;base64,", "DATA:image/PNG;base64,", "data:image/png;charset=utf-8;name=a.png;base64,",
     "data:image/png;BASE64,", "data: image/png ; base64,"],
)  # fmt: skip
def test_spellings_of_data_uris(model: Model, head: str) -> None:
    async def body() -> None:
        app, _ = seeing_app(model, said("a"))
        assert (await ask(app, "POST", CHAT, shown(uri(PNG, head)))).status == 200

    run(body)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>'
REFUSED = {
    "http": ("http://127.0.0.1:1/a.png", "nothing is fetched"),
    "https": ("HTTPS://example.org/a.png", "data:image/png;base64,"),
    "file": ("file:///etc/passwd", "nothing is fetched"),
    "path": ("/etc/passwd", "nothing is fetched"),
    "windows": ("C:\\a.png", "nothing is fetched"),
    "blob": ("blob:http://x/1", "nothing is fetched"),
    "empty": (" ", "nothing is fetched"),
    "no-data": ("data:image/png;base64", "must begin like"),
    "not-base64": ("data:image/png,%89PNG", "must begin like"),
    "base64-first": ("data:image/png;base64;a=b,AAAA", "must begin like"),
    "long-head": (f"data:image/png;{'a' * 300};base64,AAAA", "must begin like"),
    "no-type": ("data:;base64,AAAA", "media type must be"),
    "svg": (uri(SVG, "data:image/svg+xml;base64,"), "media type"),
    "tiff": (uri(b"II*\0", "data:image/tiff;base64,"), "media type"),
    "video": (uri(PNG, "data:video/mp4;base64,"), "media type"),
    "nothing": ("data:image/png;base64,", "empty"),
    "padding": (uri(PNG).rstrip("=") + "A", "not base64"),
    "lines": ("data:image/png;base64," + base64.encodebytes(PNG).decode(), "not base64"),
    "percent": (uri(PNG) + "%3D", "not base64"),
    "url-safe": ("data:image/png;base64,_-_-", "not base64"),
    "no-ascii": ("data:image/png;base64,éééé", "not base64"),
    "svg-lie": (uri(SVG), "found SVG"),
    "html-lie": (uri(b"<!doctype html><script>"), "found HTML"),
    "jpeg-lie": (uri(picture(format="JPEG")), "expected image/jpeg or image/jpg; found image/png"),
    "heic-lie": (uri(b"\0\0\0 ftypheic" + bytes(40)), "found HEIF"),
    "polyglot": (uri(b"PK\3\4" + PNG), "found ZIP"),
    "truncated": (uri(PNG[:-900]), "picture"),
    "magic-alone": (uri(PNG[:8]), "picture"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(model: Model, name: str, caplog: pytest.LogCaptureFixture) -> None:
    url, words = REFUSED[name]

    async def body() -> None:
        app, served = seeing_app(model)
        reply = await ask(app, "POST", CHAT, shown(url))
        error = reply.error
        assert (reply.status, error["type"], error["param"]) == (400, "invalid_request_error", "messages[0].content[0]")
        assert error["message"].startswith("messages[0].content[0]: ") and words in error["message"]
        assert len(error["message"]) < 400 and url[-60:] not in caplog.text and not served.asked
        assert app.state.service.held == 0

    run(body)


def test_base64_in_steps() -> None:
    data = PNG + bytes(STEP)
    text = base64.b64encode(data).decode()
    assert Attachment("image", "image/png", text, "here").data() == data
    assert Attachment("image", "image/png", "xyz" + text, "here", 3).data() == data
    cut = text[: STEP - 4] + "AA==" + text[STEP:]
    for wrong in (cut, text + "A", text + "\n"):
        with pytest.raises(MediaError, match="not base64"):
            Attachment("image", "image/png", wrong, "here").data()


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "system", "content": [{"type": "image_url", "image_url": {"url": uri(PNG)}}]}, "content[0]"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": uri(PNG)}}]}, "content[0]"),
        ({"role": "tool", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}, "content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}, "content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}, "content[1].text"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "content[0].type"),
        ({"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}, "content[0].type"),
    ],
)  # fmt: skip
def test_parts_that_are_refused(model: Model, message: dict[str, Any], param: str) -> None:
    async def body() -> None:
        app, served = seeing_app(model)
        for path in (CHAT, "/tokenize"):
            reply = await ask(app, "POST", path, {"messages": [{"role": "user", "content": "Hi"}, message]})
            assert (reply.status, reply.error["param"]) == (400, f"messages[1].{param}")
        assert not served.asked

    run(body)


def test_a_model_of_text_alone_says_so(demo: Model) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "not even base64"}}
    asked = {
        CHAT: shown(),
        "/tokenize": shown(),
        "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": uri(PNG)}]}]},
        "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": [image]}]},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": [image]}]},
    }

    async def body() -> None:
        app, _ = scripted_app(demo)
        for path, sent in asked.items():
            reply = await ask(app, "POST", path, sent)
            assert reply.status == 400 and "the model 'demo' takes in text alone" in reply.error["message"]
        (card,) = (await ask(app, "GET", "/v1/models")).json["data"]
        assert card["architecture"]["input_modalities"] == ["text"] and card["max_body_bytes"] == 4 << 20
        assert (await ask(app, "POST", CHAT, shown() | {"user": "x" * (5 << 20)})).status == 413, (
            "nor does it get larger bodies"
        )

    run(body)


def test_what_a_model_that_sees_says_of_itself(model: Model) -> None:
    async def body() -> None:
        app, _ = seeing_app(model, said("a"), said("b"))
        (card,) = (await ask(app, "GET", "/v1/models")).json["data"]
        assert card["architecture"] == {
            "input_modalities": ["text", "image", "video"], "output_modalities": ["text"],
        }  # fmt: skip
        assert card["max_body_bytes"] == 32 << 20
        assert (await ask(app, "POST", CHAT, shown() | {"user": "x" * (5 << 20)})).status == 200
        app, _ = seeing_app(model, settings=Settings("demo", body_bytes=1000))
        assert (await ask(app, "GET", "/v1/models/demo")).json["max_body_bytes"] == 1000
        assert (await ask(app, "POST", CHAT, shown(text="x" * 1000))).status == 413
        schemas = (await ask(app, "GET", "/openapi.json")).json["components"]["schemas"]
        fields = [set(schema.get("properties", ())) for schema in schemas.values()]
        assert {"type", "text", "image_url", "video_url"} in fields and {"type", "media_type", "data"} in fields

    run(body)


def test_a_picture_is_encoded_once_for_each_key(tmp_path: Path) -> None:
    with seeing_model(tmp_path) as model, serving(model, Settings("demo", keys=Keys.of(["a", "b"]))) as server:

        def look(key: str, text: str, **fields: Any) -> None:
            headers = {"x-api-key": key}
            reply = httpx2.post(f"{server.url}{CHAT}", json=shown(text=text) | fields, headers=headers, timeout=20)
            assert reply.status_code == 200 and reply.json()["usage"]["completion_tokens"] == 2

        for key, text in (("a", "What is this?"), ("a", "And this?"), ("b", "What is this?")):
            look(key, text)
            look(key, text, cache_salt="all")
        metrics = httpx2.get(f"{server.url}/metrics", headers={"x-api-key": "a"}).text
    assert f'ernie_rt:vision_patches_total{{model_name="demo"}} {3 * 16}.0' in metrics, "for a, for b and for all"


# By the clients.


def http(app: Starlette) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://server")


def test_by_the_client_of_openai(model: Model) -> None:
    async def body() -> None:
        app, served = seeing_app(model, said("A ", "cat."), said("A cat."), said("A cat."))
        client = openai.AsyncOpenAI(api_key="k", base_url="http://server/v1", http_client=http(app), max_retries=0)
        asked: Any = shown(uri(PNG), detail="low")["messages"]
        stream = await client.chat.completions.create(model="demo", messages=asked, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "A cat."
        answer = await client.chat.completions.create(model="demo", messages=asked)
        assert answer.usage is not None and answer.usage.prompt_tokens == len(served.asked[-1].prompt.ids)
        parts: Any = [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": uri(PNG), "detail": "high"},
        ]
        given: Any = [{"role": "user", "content": parts}]
        response = await client.responses.create(model="demo", input=given, instructions="Be brief.")
        assert (
            response.output_text == "A cat."
            and response.usage is not None
            and response.usage.input_tokens == len(served.asked[-1].prompt.ids)
        )
        assert "What is this?Picture 1:" in text(served, model)
        for part, words in (
            ({"type": "input_image", "file_id": "f"}, "no file is kept here"),
            ({"type": "input_image", "detail": "auto"}, "without an image_url"),
            ({"type": "input_image", "image_url": "https://example.org/a.png"}, "nothing is fetched"),
            ({"type": "input_image", "image_url": uri(b"GIF89a")}, "expected image/gif; found image/png"),
            ({"type": "input_file", "file_data": "x"}, "input_file"),
        ):
            wrong: Any = [{"role": "user", "content": [{"type": "input_text", "text": "x"}, part]}]
            with pytest.raises(openai.BadRequestError, match=words) as refused:
                await client.responses.create(model="demo", input=wrong)
            assert refused.value.param == "input[0].content[1]"
        with pytest.raises(openai.BadRequestError, match="messages of the user"):
            wrong = [{"role": "system", "content": [{"type": "input_image", "image_url": uri(PNG)}]}]
            await client.responses.create(model="demo", input=wrong)

    run(body)


def test_by_the_client_of_anthropic(model: Model) -> None:
    def block(data: str, media_type: str = "image/png") -> dict[str, Any]:
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}

    async def body() -> None:
        app, served = seeing_app(model, said("A cat."))
        client = anthropic.AsyncAnthropic(api_key="k", base_url="http://server", http_client=http(app), max_retries=0)
        good = base64.b64encode(PNG).decode()
        content: Any = [block(good), {"type": "text", "text": "What is this?"}]
        messages: Any = [{"role": "user", "content": content}]
        counted = await client.messages.count_tokens(model="demo", messages=messages)
        answer = await client.messages.create(model="demo", max_tokens=9, messages=messages)
        assert answer.content[0].type == "text" and answer.content[0].text == "A cat."
        assert answer.usage.input_tokens == counted.input_tokens == len(served.asked[-1].prompt.ids)
        assert "What is this?" in text(served, model).partition("[4]")[2]
        for wrong_block, words in (
            (block("####"), "not base64"),
            (block(good, "image/gif"), "expected image/png; found image/gif"),
            (block(good, "image/tiff"), "media type"),
            ({"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}, "nothing is fetched"),
            ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "kept here"),
            ({"type": "document", "source": {"type": "text", "data": "x"}}, "document"),
        ):
            wrong: Any = [{"role": "user", "content": [{"type": "text", "text": "x"}, wrong_block]}]
            with pytest.raises(anthropic.BadRequestError, match=words) as refused:
                await client.messages.create(model="demo", max_tokens=9, system="s", messages=wrong)
            assert "messages[0].content[1]" in refused.value.message
            assert refused.value.type == "invalid_request_error"

    run(body)


# Too many, too large, too slow.


def test_too_many_are_refused_before_one_is_looked_at(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.Decoders, "decode", lambda *_: pytest.fail("decoded"))

    async def body() -> None:
        app, _ = seeing_app(model)
        part = shown(uri(PNG[:90]))["messages"][0]["content"][0]
        for count in (65, 10_000):
            asked = {
                "messages": [{"role": "user", "content": [part] * (count - 1)}, {"role": "user", "content": [part]}]
            }
            began = time.process_time()
            reply = await ask(app, "POST", CHAT, asked)
            assert (reply.status, reply.error["param"]) == (
                400,
                f"messages[{64 // (count - 1)}].content[{64 % (count - 1)}]",
            )
            assert "at most 64 pictures" in reply.error["message"] and time.process_time() - began < 1

    run(body)


def test_what_is_longer_than_the_context_is_not_decoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, decoded = Decoding.pixels, []

    def noted(opened: Decoding, *size: Any, **asked: Any) -> Any:
        decoded.append(size)
        return pixels(opened, *size, **asked)

    monkeypatch.setattr(Decoding, "pixels", noted)
    film = {"type": "video_url", "video_url": {"url": uri(video(4), "data:video/mp4;base64,")}}

    async def body() -> None:
        app, served = seeing_app(model)
        part = shown(uri(blank(28 * 20, 28 * 10)))["messages"][0]["content"][0]
        for begun, after, place in ([], [part] * 60, 2), ([part], [film], 1):
            decoded.clear()
            reply = await ask(app, "POST", CHAT, {"messages": [{"role": "user", "content": begun + after}]})
            assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
            assert f"messages[0].content[{place}]" in reply.error["message"] and not served.asked
            assert len(decoded) <= 1, "of equal pictures the first, of the video no frame"
            assert app.state.service.held == 0

    run(body)


def test_bombs_are_refused(model: Model) -> None:
    bombs = blank(9000, 9000), blank(28 * 300, 28)

    async def body() -> None:
        app, _ = seeing_app(model)
        for data in bombs:
            began = time.process_time()
            reply = await ask(app, "POST", CHAT, shown(uri(data)))
            assert (reply.status, reply.error["param"]) == (400, "messages[0].content[0]")
            assert time.process_time() - began < 0.5

    run(body)


def test_what_pictures_become_counts_as_well(model: Model) -> None:
    async def body() -> None:
        app, served = seeing_app(model, said("a"), settings=Settings("demo", held_bytes=500_000))
        reply = await ask(app, "POST", CHAT, shown(uri(blank(560, 560))))
        assert (reply.status, reply.error["code"]) == (413, "body_too_large") and not served.asked, "now and ever"
        assert app.state.service.held == 0
        app.state.service.held = 490_000
        reply = await ask(app, "POST", CHAT, shown(uri(picture(84, 84))))
        assert (reply.status, reply.error["code"]) == (429, "bodies_too_large"), "beside those of others"
        app.state.service.held = 0
        assert (await ask(app, "POST", CHAT, shown())).status == 200

    run(body)


def test_what_was_decoded_is_not_decoded_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, begun = decoding.Decoders._decode, []

    def noted(decoders: decoding.Decoders, given: Attachment, announce: Any) -> Any:
        begun.append(given)
        return decode(decoders, given, announce)

    monkeypatch.setattr(decoding.Decoders, "_decode", noted)
    monkeypatch.setattr(decoding, "KEPT_BYTES", 2 * 56 * 56 * 3)

    async def body() -> None:
        app, served = seeing_app(model, *[said("a")] * 8, settings=Settings("demo", keys=Keys.of(["a", "b"])))
        first, second, third = (uri(picture(seed=seed)) for seed in (1, 2, 3))
        for key, url, count, fields in (
            ("a", first, 1, {}), ("a", first, 1, {}), ("b", first, 2, {}), ("b", first, 3, {"detail": "low"}),
            ("b", second, 4, {}), ("b", third, 5, {}), ("b", second, 5, {}), ("a", first, 6, {}),
        ):  # fmt: skip
            reply = await ask(app, "POST", CHAT, shown(url, **fields), {"x-api-key": key})
            assert reply.status == 200 and len(begun) == count and [item.tokens for item in items(served)] == [4]

    run(body)


def test_nothing_of_a_request_stays(model: Model) -> None:
    """Nor has it to be found by a collector, who counts objects and not their bytes."""

    async def body() -> None:
        app, _ = seeing_app(model, said("a"))
        for path, (wrong, asked) in itertools.product((CHAT, "/tokenize"), {
            False: shown(), "file": shown(uri(PNG[:-500])), "prompt": shown(text="long " * 1000),
        }.items()):  # fmt: skip
            assert (await ask(app, "POST", path, asked)).status == (400 if wrong else 200)
            await until(lambda: not any(type(each) is Attachment for each in gc.get_objects()))

    gc.collect()
    gc.freeze()  # what there is already need not be looked through each time
    gc.disable()
    try:
        run(body)
    finally:
        gc.enable()
        gc.unfreeze()


class Held:
    """Decoding that waits to be let through, and who is at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.first = 0
        """So many of those that have begun go on, though it is not open."""
        self.begun: list[Attachment] = []
        numbers = itertools.count()
        decode = decoding.Decoders._decode

        def held(decoders: decoding.Decoders, given: Attachment, announce: Any) -> Any:
            number = next(numbers)
            self.begun.append(given)
            while not self.open.wait(0.01) and number >= self.first:
                pass
            return decode(decoders, given, announce)

        monkeypatch.setattr(decoding.Decoders, "_decode", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(monkeypatch)
    yield held
    held.open.set()


def test_others_are_answered_meanwhile(model: Model, held: Held) -> None:
    async def body() -> None:
        app, served = seeing_app(model)
        served.otherwise = said("a")
        looking = [asyncio.create_task(ask(app, "POST", CHAT, shown())) for _ in range(9)]
        await until(lambda: len(held.begun) == decoding.EACH)
        served.otherwise = ()
        served._scripts = [said("text")]
        plain = await ask(app, "POST", CHAT, {"messages": [{"role": "user", "content": "Hi"}]})
        assert plain.json["choices"][0]["message"]["content"] == "text" and not any(task.done() for task in looking)
        assert len(held.begun) == decoding.EACH
        for _ in range(9):
            served._scripts.append(said("seen"))
        held.open.set()
        assert {reply.status for reply in await asyncio.gather(*looking)} == {200}

    run(body)


def test_tenants_take_turns(model: Model, held: Held) -> None:
    async def body() -> None:
        keys = Keys.of(["a", "b", "c"])
        app, _ = seeing_app(model, *[said("x")] * 12, settings=Settings("demo", keys=keys))

        def look(key: str, number: int) -> asyncio.Task[Any]:
            url = uri(picture(seed=number))
            return asyncio.create_task(ask(app, "POST", CHAT, shown(url), {"x-api-key": key}))

        many = [look("a", number) for number in range(8)]
        await until(lambda: len(held.begun) == decoding.EACH)
        one, other = look("b", 100), look("c", 101)
        await until(lambda: len(held.begun) == decoding.THREADS)
        held.first = 4
        await asyncio.gather(one, other)
        assert sum(task.done() for task in many) <= 3, "those of the others did not wait for all of these"
        held.open.set()
        await asyncio.gather(*many)

    run(body)


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_a_client_that_leaves_meanwhile_has_nothing_more_decoded(model: Model, held: Held, path: str) -> None:
    async def body() -> None:
        app, served = seeing_app(model)
        gone = asyncio.Event()
        asked = shown()
        asked["messages"][0]["content"] *= 5
        asking = asyncio.create_task(ask(app, "POST", path, asked, gone=gone))
        await until(lambda: len(held.begun) == 1)
        gone.set()
        assert (await asking).status == 499
        held.open.set()
        await asyncio.sleep(0.05)
        assert len(held.begun) == 1 and not served.asked and app.state.service.held == 0
        assert app.state.service.dispatcher._coming == 0

    run(body)
