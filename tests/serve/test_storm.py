"""Malformed bodies, thousands of them: each is answered, none with a 500, and the server lives on."""

from __future__ import annotations

import base64
import json
import random
import re
import time
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from ernie_rt import Model
from ernie_rt.text.chat import ChatPrompt
from ernie_rt_serve.app import ENTRIES
from ernie_rt_serve.openapi import describe
from support.bodies import ODD, PROSE, Bodies
from support.media import video
from support.pictures import kept_workers, picture, seeing_app, seeing_model
from support.serving import ask, run, said, scripted_app

ROUTES = [entry for entry in ENTRIES if entry.body is not None]
LEAK = re.compile(rb"0x[0-9a-f]{8,}|/[a-z_]+/[a-z_]+\.[a-z]+|Traceback|grams are in")
ALLOWED = {200, 400, 404}


@pytest.mark.parametrize("bodies", [500, pytest.param(10_000 * len(ROUTES), marks=pytest.mark.long)])
def test_no_body_is_answered_with_a_500(demo: Model, bodies: int) -> None:
    async def body() -> None:
        app, served = scripted_app(demo)
        served.otherwise = said("a", "b")
        await storm(app, Drawn(seed=1), bodies)

    run(body, 300)


@pytest.mark.parametrize("bodies", [150, pytest.param(10_000, marks=pytest.mark.long)])
def test_nor_one_with_pictures(tmp_path: Path, bodies: int) -> None:
    async def body(model: Model) -> None:
        app, served = seeing_app(model)
        served.otherwise = said("a", "b")
        await storm(app, Pictures(seed=1), bodies)
        prompts = [asked.prompt for asked in served.asked]
        assert sum(isinstance(each, ChatPrompt) and bool(each.items) for each in prompts) > bodies // 20
        assert app.state.service.held == 0

    with kept_workers(), seeing_model(tmp_path) as model:
        run(lambda: body(model), 300)


class Drawn:
    """Bodies made of the server's description."""

    paths = tuple(entry.path for entry in ROUTES)

    def __init__(self, seed: int) -> None:
        self._document = describe(ENTRIES)
        self._bodies = Bodies(self._document, random.Random(seed))

    def body(self, path: str) -> bytes:
        content = self._document["paths"][path]["post"]["requestBody"]["content"]
        return self._bodies.body(content["application/json"]["schema"])


class Pictures:
    """Bodies with a picture and a video, changed in a place or two, of which half of the files are broken."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        forms = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
        self._files = {type: picture(format=form) for form, type in forms.items()} | {"video/mp4": video(1)}
        chat = {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "", "detail": "low"}},
                        {"type": "text", "text": PROSE[0]},
                        {"type": "video_url", "video_url": {"url": ""}},
                    ],
                },
                {"role": "assistant", "content": "a"},
                {"role": "user", "content": [{"type": "text", "text": "b"}]},
            ]
        }
        shown = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
        messages = {"system": "c", "messages": [{"role": "user", "content": [shown, {"type": "text", "text": "d"}]}]}
        told = {"type": "input_text", "text": "e"}
        responses = {"input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": "", "detail": "auto"}, told]},
        ]}  # fmt: skip
        self._right: dict[str, Any] = {
            "/v1/chat/completions": chat, "/tokenize": chat, "/v1/responses": responses,
            "/v1/messages": messages | {"max_tokens": 5}, "/v1/messages/count_tokens": messages,
        }  # fmt: skip
        self.paths = tuple(self._right)

    def body(self, path: str) -> bytes:
        body = deepcopy(self._right[path])
        self._fill(body)
        for _ in range(self._random.randrange(3)):
            self._change(body)
        return json.dumps(body).encode()

    def _fill(self, value: Any) -> None:
        """Put a file wherever one belongs."""
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if inner == "":
                type, text = self._file()
                value |= {key: text, "media_type": type} if key == "data" else {key: f"data:{type};base64,{text}"}
            elif isinstance(inner, dict | list):
                self._fill(inner)

    def _change(self, value: Any) -> None:
        """Replace something within a value, or leave it out."""
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = self._random.choice(keys)
        if isinstance(value[key], dict | list) and self._random.random() < 0.8:
            self._change(value[key])
        elif self._random.random() < 0.8:
            value[key] = deepcopy(self._random.choice(ODD))
        else:
            del value[key]

    def _file(self) -> tuple[str, str]:
        random = self._random
        type = random.choice(list(self._files))
        data = bytearray(self._files[type])
        match random.randrange(6):
            case 0:
                del data[random.randrange(len(data)) :]
            case 1:
                for _ in range(random.randrange(1, 20)):
                    data[random.randrange(len(data))] = random.randrange(256)
            case 2:
                data[random.randrange(64)] ^= 1 << random.randrange(8)
        text = base64.b64encode(data).decode()
        return type, text if random.random() < 0.95 else text[:-1] + random.choice("=\n\0é")


async def storm(app: Starlette, drawn: Drawn | Pictures, bodies: int) -> None:
    statuses: Counter[int] = Counter()
    seconds = []
    for number in range(bodies):
        path = drawn.paths[number % len(drawn.paths)]
        data = drawn.body(path)
        began = time.perf_counter()
        reply = await ask(app, "POST", path, data)
        seconds.append(time.perf_counter() - began)
        statuses[reply.status] += 1
        assert reply.status in ALLOWED, (path, data, reply.body)
        if reply.status != 200:
            assert reply.json["error"]["message"], (path, data)
            assert ("type" in reply.json) == path.startswith("/v1/messages"), (path, data, reply.body)
            assert not LEAK.search(reply.body), (data, reply.body)
    assert statuses[200] > bodies // 20 and statuses[400] > bodies // 3, statuses
    assert (await ask(app, "GET", "/health")).status == 200
    assert sorted(seconds)[len(seconds) * 99 // 100] < 0.5
