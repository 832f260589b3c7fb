"""A backend for the commands that says what it is told to say, in text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ernie_rt import loading
from ernie_rt.location import locate
from ernie_rt.text.spans import Span, encode_spans
from support.scripted import scripted


class Says:
    """The backend says these answers, and `asked` is what it was asked, as text."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.tokenizer = locate(folder).tokenizer
        ids = [encode_spans([Span(text, True)], self.tokenizer) for text in answers]
        host = scripted(*ids)
        self.backend: Any = host.backend("scripted")
        monkeypatch.setattr(loading, "PluginHost", lambda: host)

    @property
    def asked(self) -> list[str]:
        return [self.tokenizer.decode(ids, skip_special=False) for ids in self.backend.prompts]
