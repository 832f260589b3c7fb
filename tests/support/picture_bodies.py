"""Bodies of requests that show pictures and videos, almost right, and of whose files some are broken."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from random import Random
from typing import Any

from support.bodies import ODD, PROSE
from support.media import video
from support.pictures import picture


class Pictures:
    """Bodies with a picture and a video, changed in a place or two, of which half of the files are broken."""

    def __init__(self, random: Random) -> None:
        self.random = random
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
        for _ in range(self.random.randrange(3)):
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
        key = self.random.choice(keys)
        if isinstance(value[key], dict | list) and self.random.random() < 0.8:
            self._change(value[key])
        elif self.random.random() < 0.8:
            value[key] = deepcopy(self.random.choice(ODD))
        else:
            del value[key]

    def _file(self) -> tuple[str, str]:
        random = self.random
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
