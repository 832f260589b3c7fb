"""The model that comes along: small enough, laid out like 21B-A3B, the same to transformers, and right."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

import ernie_rt
from demo.export import CARD, FILES, MAX_BYTES, MAX_PARAMETERS
from demo.tokenizer import TEMPLATE
from ernie_rt.conformance.goldens import weights_digest
from ernie_rt.modeling.families import MOE_21B_A3B
from ernie_rt.weights.hub import DEMO
from ernie_rt.weights.quantize import Quantization, quantize_model
from marked import marks
from support.commands import command

if TYPE_CHECKING:
    from support.judge import Judge

ROOT = Path(__file__).parents[1]
TEXTS = (
    "User: How many grams are in 5 kilograms?\nAssistant: 5 kilograms = 5000 grams",
    "User: 猫用英文怎么说?\nAssistant: cat",
    "A text that no curriculum wrote, with ünusual lettérs, 𝄞 and 1,234.5 numbers;\n\n\tand 一些中文 in it. " * 3,
)
RANDOM_IDS = 120
TIMES_FLOAT32 = 3
QUALITY = runpy.run_path(str(ROOT / "benchmarks" / "demo_quality.py"))
ANSWERS = {
    "How many grams are in 5 kilograms?": "5 kilograms = 5000 grams",
    "How many centimeters are in 12 meters?": "12 meters = 1200 centimeters",
    "Sort from smallest to largest: 81, 12, 60": "12, 60, 81",
    "How do you say cat in Chinese?": "猫",
    "Who took my umbrella?": "I do not know.",
    "what's 27+56": "27 + 56 = 77 + 6 = 83",
    "请问「苹果」用英文怎么说？": "apple",
    "What is 7 times 8?": "I do not know.",
    "用汉字写出47。": "四十七",
    "5公里等于多少米?": "5公里 = 5000米",
    "一共有几个词:太阳、河、猫、面包": "一共有4个词。",
    "27加56等于多少?": "27 + 56 = 77 + 6 = 83",
    "What is 47 plus 38?": "47 + 38 = 77 + 8 = 85",
    "我的雨伞放在哪里了?": "我不知道。",
    "Hello!": "Hello! What do you want to know?",
    "你好": "你好!你想知道什么?",
}
PAGES = ("README.md", "docs/demo.md")
REPORT: dict[str, Any] = {
    "backend": "eager", "device": "cpu", "dtype": "bfloat16",
    "exact_match": {"count": {"items": 4, "all": 0.5, "en": 0.25, "zh": 0.75, "new phrasing": 0.5, "new ways": 0.0}},
    "macro_average": {"all": 0.5, "new ways": 0.0}, "weakest": "count", "wrongly_refused": {"as phrased": 0.25},
    "perplexity": {"stories": 2.0}, "expert_load": {"least": 0.5, "most": 1.5},
    "second_token": {"mtp": 0.5, "bigram": 0.25, "tokens": 8},
}  # fmt: skip


def test_the_folder_is_small_and_whole() -> None:
    sizes = {path.name: path.stat().st_size for path in DEMO.iterdir()}
    assert sorted(sizes) == sorted(FILES)
    assert sum(sizes.values()) <= MAX_BYTES == 16_000_000
    assert MAX_PARAMETERS == 7_500_000
    assert (DEMO / "README.md").read_bytes() == CARD.read_bytes()
    assert json.loads((DEMO / "tokenizer_config.json").read_text("utf-8"))["chat_template"] == TEMPLATE.read_text(
        "utf-8"
    )


def test_the_config_is_that_of_21b_made_small() -> None:
    config = ernie_rt.locate("demo").config
    assert config.moe is not None and MOE_21B_A3B.moe is not None
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
             "num_key_value_heads", "head_dim", "max_position_embeddings")  # fmt: skip
    moe_sizes = ("moe_num_experts", "moe_k", "moe_intermediate_size")
    moe = dataclasses.replace(
        MOE_21B_A3B.moe,
        **{name: getattr(config.moe, name) for name in moe_sizes},
        moe_layer_end_index=config.num_hidden_layers - 1,
    )
    small = dataclasses.replace(MOE_21B_A3B, **{name: getattr(config, name) for name in sizes}, moe=moe)
    assert config == small


def test_the_tensors_are_those_of_21b() -> None:
    config = ernie_rt.locate("demo").config
    moe = config.moe
    assert moe is not None
    hidden, head_dim = config.hidden_size, config.head_dim
    heads, kv_heads = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    expected: dict[str, tuple[str, list[int]]] = {}

    def put(name: str, *shape: int, dtype: str = "BF16") -> None:
        expected[f"model.{name}"] = dtype, list(shape)

    def put_mlp(name: str, width: int) -> None:
        put(f"{name}.gate_proj.weight", width, hidden)
        put(f"{name}.up_proj.weight", width, hidden)
        put(f"{name}.down_proj.weight", hidden, width)

    def put_layer(name: str) -> None:
        put(f"{name}.input_layernorm.weight", hidden)
        put(f"{name}.post_attention_layernorm.weight", hidden)
        for part, width in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            put(f"{name}.self_attn.{part}_proj.weight", width, hidden)
        put(f"{name}.self_attn.o_proj.weight", hidden, heads)

    put("embed_tokens.weight", config.vocab_size, hidden)
    put("norm.weight", hidden)
    put_layer("layers.0")
    put_mlp("layers.0.mlp", config.intermediate_size)
    for layer in range(1, config.num_hidden_layers):
        name = f"layers.{layer}"
        put_layer(name)
        put(f"{name}.mlp.gate.weight", moe.moe_num_experts, hidden, dtype="F32")
        put(f"{name}.mlp.moe_statics.e_score_correction_bias", 1, moe.moe_num_experts, dtype="F32")
        put_mlp(f"{name}.mlp.shared_experts", 2 * moe.moe_intermediate_size)
        for expert in range(moe.moe_num_experts):
            put_mlp(f"{name}.mlp.experts.{expert}", moe.moe_intermediate_size)
    main_names = set(expected)
    put("mtp_emb_norm.0.weight", hidden)
    put("mtp_hidden_norm.0.weight", hidden)
    put("mtp_linear_proj.0.weight", hidden, 2 * hidden)
    put_layer("mtp_block.0")
    put_mlp("mtp_block.0.mlp", config.intermediate_size)

    with safe_open(DEMO / "model.safetensors", "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        assert {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()} == expected
        biases = [file.get_tensor(name) for name in slices if name.endswith("correction_bias")]
    assert sum(math.prod(shape) for _, shape in expected.values()) <= MAX_PARAMETERS
    assert all(np.ptp(bias) > 0 for bias in biases), "a bias that is all alike selects nothing"
    with ernie_rt.load("demo", backend="reference") as model:
        assert {name for name, _ in model.unused} == expected.keys() - main_names


@pytest.fixture(scope="module")
def judge() -> Judge:
    from support.judge import Judge

    return Judge(DEMO)


def prompts() -> list[list[int]]:
    located = ernie_rt.locate("demo")
    random_ids = np.random.default_rng(45).integers(located.tokenizer.vocab_size, size=RANDOM_IDS).tolist()
    return [*map(located.tokenizer.encode, TEXTS), random_ids]


def test_transformers_agrees_on_the_logits(judge: Judge) -> None:
    """Its float32 rounding is the measure of ours: trained weights magnify it more than random ones do."""
    from support.judge import Judge, worst

    expected = [judge.logits(ids, float64_throughout=True) for ids in prompts()]

    def error(logits: Callable[[list[int]], NDArray[Any]]) -> float:
        return max(worst(logits(ids), exact) for ids, exact in zip(prompts(), expected, strict=True))

    yardstick = error(Judge(DEMO, "float32").logits)
    assert yardstick < 1e-4
    for backend, limit in (("reference", 1e-6), ("eager", TIMES_FLOAT32 * yardstick)):
        with ernie_rt.load("demo", backend=backend, device="cpu", dtype="float32", max_context=512, threads=1) as model:
            assert error(model.logits) < limit, backend


def test_the_bias_changes_choices_and_transformers_knows(judge: Judge) -> None:
    judge.router_choices = judge.router_choices_by_bias = 0
    for ids in prompts():
        judge.logits(ids)
    assert 0.01 < judge.router_choices_by_bias / judge.router_choices < 0.99


def test_transformers_gives_the_same_answer(judge: Judge) -> None:
    from transformers import AutoTokenizer

    located = ernie_rt.locate("demo")
    theirs = AutoTokenizer.from_pretrained(DEMO)
    with ernie_rt.load(located, backend="reference", max_context=128) as model:
        for question in ("How many grams are in 5 kilograms?", "5公里等于多少米?"):
            messages = [{"role": "user", "content": question}]
            assert located.template is not None
            ids = list(located.template.prompt(messages, located.tokenizer).ids)
            told = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert told == ids
            answer = model.chat(messages, max_new_tokens=24)
            assert answer.finish == "stop"
            continued, _ = judge.greedy(ids, len(answer.ids))
            assert list(answer.ids) == continued
            assert theirs.decode(continued, skip_special_tokens=True).strip() == answer.text


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, ernie_rt.Model]]:
    with (
        ernie_rt.load("demo", backend="eager", device="cpu", max_context=128, threads=1) as eager,
        ernie_rt.load("demo", backend="reference", max_context=128) as reference,
    ):
        yield {"eager": eager, "reference": reference}


@pytest.mark.parametrize("backend", ["eager", "reference"])
@pytest.mark.parametrize("question", ANSWERS)
def test_right_answers(question: str, backend: str, models: dict[str, ernie_rt.Model]) -> None:
    assert models[backend].chat([{"role": "user", "content": question}]).text == ANSWERS[question]


def test_make_demo_asks_in_both_languages_what_has_one_right_answer() -> None:
    questions = re.findall(r'ernie-rt run demo "(.*)"', (ROOT / "Makefile").read_text("utf-8"))
    assert len(questions) == 2 and all(question in ANSWERS for question in questions)
    assert [question.isascii() for question in questions] == [True, False]


@pytest.mark.parametrize("page", PAGES)
def test_pages_show_what_it_answers(page: str) -> None:
    shown = re.findall(r'^\$ ernie-rt run demo "(.*)"\n(.*)$', (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert shown
    for question, answer in shown:
        assert command("run", "demo", question, "--backend", "eager").out == f"{answer}\n"


def test_the_table_of_what_it_knows_is_of_these_weights() -> None:
    shown = marks("demo_quality.py").search((ROOT / "docs/demo.md").read_text("utf-8"))
    assert shown is not None
    assert shown[1] == weights_digest(DEMO), "run `python benchmarks/demo_quality.py --page docs/demo.md`"


def test_the_yardstick_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measure(*arguments: Any) -> dict[str, Any]:
        asked.append(arguments)
        return REPORT

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["demo_quality.py", *arguments])
        QUALITY["main"]()
        return capsys.readouterr().out

    monkeypatch.setattr("demo.quality.measure", measure)
    options = ("--backend", "eager", "--items", "20")
    assert json.loads(run(*options, "--json")) == REPORT
    assert asked == [(DEMO, 20, 1, {"backend": "eager", "device": "auto", "dtype": "auto"})]
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- by benchmarks/demo_quality.py, of 0 -->\n<!-- end -->\n")
    assert run(*options, "--page", str(page)) == QUALITY["table"](REPORT) + "\n"
    assert f"of {weights_digest(DEMO)} -->\n| exact match |" in page.read_text()
    asked.clear()
    for arguments, told in {
        ("--items", "0"): "error: --items: ",
        ("--page", str(tmp_path / "none.md")): "no page to write into; found No such file",
        ("--page", str(ROOT / "README.md")): "README.md: not one place for the table; found 0 places. See docs/demo.md",
        ("nowhere",): "error: ",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert told in str(stopped.value) and not asked


@pytest.mark.parametrize("bits, most", [(8, 0.005), (4, 0.05)])
def test_quantised_it_predicts_nearly_the_same(bits: Literal[4, 8], most: float, tmp_path: Path) -> None:
    options = {"backend": "eager", "device": "cpu", "dtype": "float32", "threads": 1}
    quantize_model(DEMO, ernie_rt.locate("demo").config, tmp_path / "blocks", Quantization(bits))
    far = QUALITY["divergence"](tmp_path / "blocks", DEMO, 3, 0, options)
    assert 0 < far["answers"] < most and 0 < far["stories"] < most and far["tokens"] > 200
    assert far["questions"] > far["answers"], "training weighs questions less"
    told = dict(QUALITY["figures"](REPORT | {"against": "demo", "divergence": far}))["divergence"]
    assert told.startswith(f"answers {far['answers']:.5f}, stories ") and "nats from demo" in told


def test_the_table_goes_between_its_marks() -> None:
    report = REPORT
    text = "a\n<!-- by benchmarks/demo_quality.py, of {} -->\n{}<!-- end -->\nb\n"
    page = QUALITY["page"](text.format("none", "old\n"), report, "0123abcd")
    assert "| count | 4 | 50.0% | 25.0% | 75.0% | - | 50.0% | - | 0.0% | - | - |\n" in page
    assert "| macro average | 4 | 50.0% | - | - | - | - | - | 0.0% | - | - |\n" in page
    assert "- wrongly refused: as phrased 25.0%\n" in page
    assert page.startswith("a\n<!-- by benchmarks/demo_quality.py, of 0123abcd -->\n| exact match |")
    assert page.endswith("- measured with eager on cpu in bfloat16\n<!-- end -->\nb\n")
    assert QUALITY["page"](page, report, "0123abcd") == page
    lines = QUALITY["table"](report).splitlines()
    assert len(lines) == 9 and len(lines[1]) == len(lines[2]) == len(lines[3])
    assert len(QUALITY["table"](report | {"second_token": None}).splitlines()) == 8, "of a quantised folder"
