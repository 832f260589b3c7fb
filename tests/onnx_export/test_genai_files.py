"""The files that onnxruntime-genai reads beside a graph; and, in an environment that has it, what it makes of them."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

import ernie_rt
from ernie_rt.export import ExportOptions, export
from ernie_rt.generation.defaults import Defaults
from ernie_rt.location import Located, locate
from ernie_rt.modeling.config import parse_config
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.weights.hub import resolve
from ernie_rt.weights.quantize import Quantization
from ernie_rt_onnx import genai
from ernie_rt_onnx.genai import genai_config, portable_template, write_genai_files
from ernie_rt_onnx.library import kernels, library_path
from support.exports import read as read_model
from support.operators import ours_that_ran
from support.templates import CHATML, CUTTING, PLAIN, THINKING
from support.tokenizers import ROWS, WORDS, mixed_text, write_ernie_tokenizer

TALK = [
    {"role": "system", "content": " Be brief."},
    {"role": "user", "content": "Hello 你好\n<b> "},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Go on\n"},
]
TOKENS = {"bos_token": "<s>", "cls_token": "<|begin_of_sentence|>", "sep_token": "<|end_of_sentence|>"}
TRIMMED = """\
{# about #}
{% if true %}

  {% set x = '"' %}
indented
   {%- if false %}no{% endif %}
  {{ cls_token }}
    {% endif %}
  {%+ set y = 1 -%}

  more

{%- for message in messages %}
  {{- message.content -}}
{% endfor +%}
end"""
"""White space before and after tags in each combination."""


def tiny() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    others = {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 8192}
    return parse_config({"model_type": "ernie4_5", "vocab_size": ROWS, **sizes, **others}, "config.json")


def located_in(folder: Path, template: str | None = PLAIN, **generation: object) -> Located:
    write_ernie_tokenizer(folder, template)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return Located(tiny(), folder)


def read(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_text())
    return contents


def test_genai_config(tmp_path: Path) -> None:
    asked = {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "min_p": 0.1, "eos_token_id": [2, 9]}
    located = located_in(tmp_path, **asked, presence_penalty=0.5)
    (tmp_path / "out").mkdir()
    assert write_genai_files(located, tmp_path / "out", "model.onnx") == ("min_p", "presence_penalty")
    written = read(tmp_path / "out" / "genai_config.json")
    model, search = written["model"], written["search"]
    sep = located.tokenizer.reserved["<|end_of_sentence|>"]
    assert (model["bos_token_id"], model["eos_token_id"], model["pad_token_id"]) == (1, [2, 9, sep], 0)
    assert (model["type"], model["vocab_size"], model["context_length"]) == ("ernie4_5", ROWS, 8192)
    assert model["decoder"]["filename"] == "model.onnx"
    assert model["decoder"]["session_options"] == {"provider_options": []}
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_size")
    assert [model["decoder"][name] for name in sizes] == [32, 1, 2, 1, 16]
    assert search.pop("max_length") == genai.MAX_LENGTH
    assert search == {
        "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.7, "repetition_penalty": 1.0,
        "num_beams": 1, "past_present_share_buffer": False,
    }  # fmt: skip


def test_a_model_that_says_little() -> None:
    fields = {"model_type": "ernie4_5", "max_position_embeddings": 512, "bos_token_id": None, "pad_token_id": None}
    config = parse_config({**fields, "eos_token_id": 7}, "config.json")
    written = genai_config(config, Defaults(), "m.onnx")
    assert "bos_token_id" not in written["model"]
    assert (written["model"]["eos_token_id"], written["model"]["pad_token_id"]) == ((7,), 7)
    assert written["model"]["decoder"]["session_options"] == {"provider_options": []}
    assert (written["search"]["max_length"], written["search"]["do_sample"]) == (512, False)


def test_the_folder_stays_a_checkpoint(tmp_path: Path) -> None:
    """The files may be written over those that they were made of."""
    before = located_in(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = read(path) | {"auto_map": {"AutoTokenizer": "code.py"}, "tokenizer_class": "Special"}
    settings["added_tokens_decoder"]["100297"]["special"] = False  # <|LOC_0|>
    path.write_text(json.dumps(settings))
    tokenizer, template = before.tokenizer, before.template
    write_genai_files(before, tmp_path, "model.onnx")
    assert "auto_map" not in read(path)
    after = Located(tiny(), tmp_path)
    for name in ("pieces", "special", "reserved", "added", "spacing", "notes"):
        assert getattr(after.tokenizer, name) == getattr(tokenizer, name), name
    assert after.template is not None and template is not None
    assert after.template.kind == template.kind == "ernie"
    assert after.template.prompt(TALK, tokenizer) == template.prompt(TALK, tokenizer)


def test_without_a_template(tmp_path: Path) -> None:
    located = located_in(tmp_path, None)
    assert write_genai_files(located, tmp_path, "model.onnx") == ()
    assert read(tmp_path / "genai_config.json")["model"]["eos_token_id"] == [2]
    assert "chat_template" not in read(tmp_path / "tokenizer_config.json")


@pytest.mark.parametrize(
    ("source", "end"),
    [(PLAIN, "<|end_of_sentence|>"), (PLAIN + "{# changed #} ", "<|end_of_sentence|>"), (CHATML, "<|im_end|>")],
)
def test_the_end_of_a_turn_is_told(tmp_path: Path, source: str, end: str) -> None:
    located = located_in(tmp_path, source)
    write_genai_files(located, tmp_path, "model.onnx")
    assert read(tmp_path / "genai_config.json")["model"]["eos_token_id"] == [2, located.tokenizer.reserved[end]]


@pytest.mark.parametrize("source", [PLAIN, THINKING, CHATML, CUTTING, TRIMMED])
def test_a_template_means_the_same_to_every_engine(source: str) -> None:
    def render(text: str, trim: bool, **tokens: str) -> str:
        environment = jinja2.Environment(trim_blocks=trim, lstrip_blocks=trim)
        return environment.from_string(text).render(messages=TALK, add_generation_prompt=True, **tokens)

    portable = portable_template(ChatTemplate(source, TOKENS, "here"))
    assert render(portable, False) == render(portable, True) == render(source, True, **TOKENS)


def test_tokens_of_a_template_are_names() -> None:
    tokens = {"x %}{{ 1 }}{% set y_token": "<s>", "sep_token": '"%}{{ 1 }}'}
    portable = portable_template(ChatTemplate("{{ sep_token }} x y_token", tokens, "here"))
    assert jinja2.Template(portable).render() == '"%}{{ 1 }} x y_token'


@pytest.mark.long
def test_transformers_reads_the_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    located = located_in(tmp_path, PLAIN)
    (tmp_path / "out").mkdir()
    write_genai_files(located, tmp_path / "out", "model.onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    rng = random.Random(6)
    for _ in range(50):
        text = " ".join(rng.choice(WORDS) for _ in range(5)) + " 你好 \n12"
        assert tokenizer(text)["input_ids"] == located.tokenizer.encode(text)
    assert located.template is not None
    prompt = located.template.prompt(TALK, located.tokenizer)
    assert tuple(tokenizer.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"]) == prompt.ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)


DRIVER = """
import json, sys
import numpy as np
import onnxruntime_genai as og
folder, asked = sys.argv[1], json.load(open(sys.argv[2]))
tokenizer = og.Tokenizer(folder)
encoded = [tokenizer.encode(text).tolist() for text in asked["texts"]]
decoded = [tokenizer.decode(np.array(ids, np.int32)) for ids in asked["ids"]]
streamed = []
for ids in asked["ids"]:
    stream = tokenizer.create_stream()
    streamed.append("".join(stream.decode(id) for id in ids))
prompt = tokenizer.apply_chat_template(json.dumps(asked["talk"]))
answer = []
if asked["generate"]:
    config = og.Config(folder)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": asked["options"]}}}))
    model = og.Model(config)
    generator = og.Generator(model, og.GeneratorParams(model))
    generator.append_tokens(tokenizer.encode(prompt))
    while not generator.is_done() and len(answer) < asked["generate"]:
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    del generator, model  # which writes what ran
json.dump([encoded, decoded, streamed, tokenizer.encode(prompt).tolist(), answer], sys.stdout)
"""
Genai = Callable[..., tuple[Any, ...]]


@pytest.fixture(scope="module")
def run_genai(tmp_path_factory: pytest.TempPathFactory) -> Genai:
    """Ask onnxruntime-genai, in an environment of its own: it brings an onnxruntime that replaces the one here.

    What else it is told are options of its session.
    """
    root = tmp_path_factory.mktemp("genai")
    venv.create(root / "venv", with_pip=True)
    python = str(root / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "onnxruntime-genai>=0.18"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"onnxruntime-genai cannot be installed: {done.stderr[-200:]}")

    def ask(folder: Path, *, texts: Any = (), ids: Any = (), generate: int = 0, **options: str) -> tuple[Any, ...]:
        asked = {"texts": list(texts), "ids": list(ids), "talk": TALK, "generate": generate, "options": options}
        (root / "asked.json").write_text(json.dumps(asked))
        command = [python, "-c", DRIVER, str(folder), str(root / "asked.json")]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return tuple(json.loads(ran.stdout))

    return ask


@pytest.mark.long
def test_genai_encodes_and_decodes(run_genai: Genai, tmp_path: Path) -> None:
    located = located_in(tmp_path)
    write_genai_files(located, tmp_path, "model.onnx")
    tokenizer = located.tokenizer
    rng = random.Random(11)
    # Text of special tokens aside, which genai finds in it, and of two characters that its tokenizer takes amiss.
    drawn = (mixed_text(rng, rng.randrange(1, 20)) for _ in range(6000))
    texts = [text for text in drawn if not any(name in text for name in (*tokenizer.reserved, "\0", "\u2581"))]
    texts += [" " * 300 + "\n" * 300, "今天天气很好" * 100, "a" * 500, " ", "\ufeff\u2028\x01"]
    ids = [tokenizer.encode(text) for text in texts]
    assert len(texts) > 1500
    encoded, decoded, streamed, _, _ = run_genai(tmp_path, texts=texts, ids=ids)
    assert encoded == ids
    assert decoded == texts == streamed
    first, second = tokenizer.reserved["<|end_of_sentence|>"], tokenizer.reserved["<think>"]
    the = tokenizer.encode("the")
    encoded, decoded, *_ = run_genai(
        tmp_path, texts=["the<|end_of_sentence|><think>", "the\0the"], ids=[[*the, first, second]]
    )
    assert encoded == [[*the, first, second], the]  # text ends at a null character
    assert decoded == ["the<think>"]


@pytest.mark.long
@pytest.mark.parametrize("source", [PLAIN, THINKING, CHATML, CUTTING])
def test_genai_renders_templates(run_genai: Genai, source: str, tmp_path: Path) -> None:
    located = located_in(tmp_path, source)
    write_genai_files(located, tmp_path, "model.onnx")
    assert located.template is not None
    prompt = located.template.prompt(TALK, located.tokenizer)
    assert tuple(run_genai(tmp_path)[3]) == prompt.ids


@pytest.mark.long
@pytest.mark.parametrize("weights", [None, 4])
def test_genai_runs_an_export(run_genai: Genai, weights: Any, tmp_path: Path) -> None:
    """The same 48 tokens as the backend, and without quantised weights as transformers."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    out = tmp_path / "out"
    export("demo", out, options=ExportOptions(None if weights is None else Quantization(weights)))
    located = locate("demo")
    config = json.loads((out / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = located.config.vocab_size - 1  # which is no token: the answer goes on
    (out / "genai_config.json").write_text(json.dumps(config))
    assert located.template is not None
    ids = located.template.prompt(TALK, located.tokenizer).ids
    prompt, answer = run_genai(out, generate=48)[3:]
    assert tuple(prompt) == ids and len(answer) == 48
    with ernie_rt.load(out, backend="onnx", dtype="float32") as model:
        assert model.generate_ids(ids, max_new_tokens=48, ignore_eos=True) == answer
    if kernels() is not None:
        library = library_path()
        assert library is not None
        shutil.copy(library, out)  # genai takes one from the model's folder, or from below the working directory
        options = {"custom_ops_library": library.name, "enable_profiling": str(tmp_path / "profile")}
        assert run_genai(out, generate=48, **options)[4] == answer
        (profile,) = tmp_path.glob("profile*.json")
        assert ours_that_ran(profile, read_model(out)) == {"MoE" if weights is None else "QMoE"}
    if weights is None:
        judge = transformers.AutoModelForCausalLM.from_pretrained(resolve("demo"), dtype=torch.float32)
        judge.generation_config.eos_token_id = None
        with torch.no_grad():
            whole = judge.generate(torch.tensor([ids]), max_new_tokens=48, do_sample=False)
        assert whole[0, len(ids) :].tolist() == answer


def test_what_no_reader_takes_is_left_out(tmp_path: Path) -> None:
    folder = shutil.copytree(locate("demo").folder, tmp_path / "model", copy_function=shutil.copyfile)
    settings = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(f'{{"x": [1, NaN], "y": 1e999, "z": {10**30}, {settings[1:]}')
    (tmp_path / "out").mkdir()
    write_genai_files(locate(folder), tmp_path / "out", "model.onnx")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(), parse_constant=pytest.fail)
    assert (written["x"], written["z"]) == ([1], 10**30) and "y" not in written
