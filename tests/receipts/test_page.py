"""docs/receipts.md: its example runs, and its table has the fields that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "receipts.md").read_text("utf-8")


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(source, "docs/receipts.md", "exec"), names)
    assert names["same"].ids == names["answer"].ids  # type: ignore[attr-defined]
    written = json.loads((tmp_path / "receipt.json").read_text())
    table = PAGE.partition("## The file")[2]
    named = set(re.findall(r"`(\w+)`", table))
    fields = {*written, *written["model"], *written["ran"], *written["answer"][0], "text"} - {"receipt"}
    penalties = {f"{kind}_penalty" for kind in ("repetition", "presence", "frequency")}
    assert fields | (written["options"].keys() - penalties) <= named
