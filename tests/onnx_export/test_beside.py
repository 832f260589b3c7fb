"""What lies beside an exported graph is made of the folder itself, so that whoever has it can make the same again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from ernie_rt.errors import IntegrityError
from ernie_rt.location import Located
from ernie_rt.modeling.config import parse_config
from ernie_rt.weights.hub import resolve
from ernie_rt_onnx.beside import GENAI, check_beside, write_beside
from support.templates import CHATML, CUTTING, PLAIN, THINKING
from support.tokenizers import ROWS, write_ernie_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIG = {"model_type": "ernie4_5", "vocab_size": ROWS, "num_key_value_heads": 1, "head_dim": 16, **SIZES}


def ernie(template: str | None, **options: bool) -> Callable[[Path], object]:
    return lambda folder: write_ernie_tokenizer(folder, template, **options)


def in_a_file(folder: Path) -> None:
    write_ernie_tokenizer(folder, PLAIN)
    (folder / "chat_template.jinja").write_text(CHATML)


def in_a_file_that_is_empty(folder: Path) -> None:
    write_ernie_tokenizer(folder, PLAIN)
    (folder / "chat_template.jinja").write_text("")
    (folder / "chat_template.json").write_text("{}")


def other_tokens(folder: Path) -> None:
    """Settings that name other tokens than the config: they are settled, and the template has those."""
    write_ernie_tokenizer(folder, "{{ bos_token }}" + PLAIN + "{{ eos_token }}")
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"bos_token": "<mask:1>", "x": 1}
    (folder / "tokenizer_config.json").write_text("\ufeff" + json.dumps(settings))


def sentencepiece_alone(folder: Path) -> None:
    shutil.copy(resolve("demo") / "tokenizer.model", folder)


def tokenizer_json_alone(folder: Path) -> None:
    write_ernie_tokenizer(folder, THINKING)
    located = Located(parse_config(CONFIG, "config.json"), folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_beside(located, folder)
    for name in ("tokenizer.model", "added_tokens.json", "genai_config.json"):
        (folder / name).unlink()


FOLDERS: dict[str, Callable[[Path], object]] = {
    "no template": ernie(None),
    "no flags": ernie(PLAIN, flags=False),
    "plain": ernie(PLAIN),
    "chatml": ernie(CHATML),
    "cutting": ernie(CUTTING),
    "thinking": ernie(THINKING),
    "a template in a file": in_a_file,
    "an empty file": in_a_file_that_is_empty,
    "other tokens": other_tokens,
    "sentencepiece alone": sentencepiece_alone,
    "tokenizer.json alone": tokenizer_json_alone,
    "no tokenizer": lambda folder: (folder / "model.safetensors").touch(),
}


QUICK = ("sentencepiece alone", "other tokens", "no tokenizer")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in FOLDERS]
)
def test_what_was_written_is_made_again(name: str, tmp_path: Path) -> None:
    FOLDERS[name](tmp_path)
    (tmp_path / "config.json").write_text("\ufeff" + json.dumps(CONFIG | {"auto_map": {"AutoConfig": "code.C"}}))
    located = Located(parse_config(CONFIG, "config.json"), tmp_path)
    notes = write_beside(located, tmp_path)
    assert bool(notes) == (name == "no tokenizer")
    names = [path.name for path in tmp_path.iterdir()]
    check_beside(Located(located.config, tmp_path), names, "")
    if name != "no tokenizer":
        assert set(GENAI) <= set(names)
        with pytest.raises(IntegrityError, match=r"genai_config\.json: not what ernie-rt writes"):
            check_beside(Located(located.config, tmp_path), [each for each in names if each != "genai_config.json"], "")
