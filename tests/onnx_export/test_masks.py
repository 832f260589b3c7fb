"""Attention masks of an exported graph: each is honoured as transformers honours it, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("transformers")
import onnxruntime as ort
import torch
import transformers

from ernie_rt.export import ExportOptions, export
from ernie_rt_onnx.mask import COLUMNS_CHECK, ROWS_CHECK, TOKENS_CHECK
from support.checkpoints import SPECS, write_checkpoint

WITHIN = {"float32": 2e-5, "float16": 2e-2}
RNG = np.random.default_rng(5)
IDS = RNG.integers(4, 250, (3, 7))


class Stepper:
    """A model that is entered step by step, its cache between."""

    def __init__(self) -> None:
        self.past: Any = None


class Exported(Stepper):
    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    def step(self, ids: Any, mask: Any) -> np.ndarray:
        """The logits that come out, `[B, V]`."""
        given = self.session.get_inputs()[2:]
        if self.past is None:
            dtype = np.float16 if given[0].type == "tensor(float16)" else np.float32
            self.past = [np.zeros((len(ids), value.shape[1], 0, value.shape[3]), dtype) for value in given]
        past = {value.name: array for value, array in zip(given, self.past, strict=True)}
        logits, *self.past = self.session.run(None, {"input_ids": ids, "attention_mask": mask, **past})
        return np.asarray(logits[:, 0], np.float64)


class Judge(Stepper):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def step(self, ids: Any, mask: Any) -> np.ndarray:
        """The logits of each row's last token that is one, else of the last column; positions as `generate` counts."""
        new = ids.shape[1]
        seen = torch.tensor((mask != 0).astype(np.int64))
        positions = (seen.cumsum(-1) - 1).clamp(min=0)[:, -new:]
        with torch.no_grad():
            said = self.model(
                torch.tensor(ids),
                attention_mask=seen,
                position_ids=positions,
                past_key_values=self.past,
                use_cache=True,
            )
        self.past = said.past_key_values
        last = [max((n for n in range(new) if row[n]), default=new - 1) for row in seen[:, -new:].tolist()]
        return said.logits[torch.arange(len(ids)), torch.tensor(last)].double().numpy()


OTHERS = (pytest.param(name, marks=pytest.mark.long) for name in ("dense-bias/float32", "moe/float16"))


@pytest.fixture(scope="module", params=["moe/float32", *OTHERS])
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, float]:
    name, dtype = request.param.split("/")
    root = tmp_path_factory.mktemp("masks")
    folder = write_checkpoint(SPECS[name], root / "checkpoint", SPECS[name].seed)
    export(folder, root / "out", options=ExportOptions(dtype=dtype))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(root / "out" / "model.onnx"), options, providers=["CPUExecutionProvider"])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return session, model, WITHIN[dtype]


def rows(*texts: str) -> np.ndarray:
    """A mask, a row for each text of digits."""
    return np.array([[int(digit) for digit in text] for text in texts], np.int64)


PROMPTS = {
    "none": rows("1111111"),
    "left": rows("1111111", "0011111", "0000001"),
    "right": rows("1111111", "1111100", "1000000"),
    "both sides": rows("0111110", "0011100", "0001000"),
    "gaps": rows("1011011", "1000001", "0101010"),
    "other numbers than 1": rows("1250009", "0022222", "3000000"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(both: Any, name: str) -> None:
    session, model, within = both
    mask = PROMPTS[name]
    ids = IDS[: len(mask)]
    ours, expected = Exported(session).step(ids, mask), Judge(model).step(ids, mask)
    check(ours, expected, within)
    for n, row in enumerate(mask):  # and each as it is alone, without what is masked
        alone = ids[n : n + 1, row != 0]
        check(ours[n : n + 1], Exported(session).step(alone, np.ones_like(alone)), within)


STEPS = {
    "left, then one by one": [("0001111", "0111111"), ("1", "1"), ("1", "1"), ("1", "1")],
    "right, then one by one": [("1111000", "1111110"), ("1", "1"), ("1", "1"), ("1", "1")],
    "gaps, then one by one": [("1101011", "0101110"), ("1", "1"), ("1", "1")],
    "one that has ended": [("1111111", "0011111"), ("1", "0"), ("1", "0"), ("1", "1")],
    "a prompt in parts": [("1111111",), ("111",), ("1",), ("1111",)],
    "a prompt in parts with padding": [("0011111",), ("101",), ("011",), ("110",), ("1",)],
}


@pytest.mark.parametrize("name", STEPS)
def test_steps(both: Any, name: str) -> None:
    session, model, within = both
    ours, judge = Exported(session), Judge(model)
    texts = ("",) * len(STEPS[name][0])
    for number, step in enumerate(STEPS[name]):
        texts = tuple(before + now for before, now in zip(texts, step, strict=True))
        ids = IDS[: len(step), : len(step[0])] + number
        check(ours.step(ids, rows(*texts)), judge.step(ids, rows(*texts)), within)


def test_what_was_seen_may_be_hidden_later_and_the_other_way_round(both: Any) -> None:
    session, model, within = both
    for later in (("11110111", "01111110"), ("00000001", "01111111"), ("10101011", "01111111")):
        ours, judge = Exported(session), Judge(model)
        for each in (ours, judge):
            each.step(IDS[:2], rows("1111111", "0110111"))
        found, expected = (each.step(IDS[:2, :1], rows(*later)) for each in (ours, judge))
        check(found, expected, within)


def check(found: np.ndarray, expected: np.ndarray, within: float) -> None:
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < within * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (rows("111111", "111111"), COLUMNS_CHECK),
        (rows("11111111", "11111111"), COLUMNS_CHECK),
        (rows("1", "1"), COLUMNS_CHECK),
        (rows("1111111"), ROWS_CHECK),
        (rows("1111111", "1111111", "1111111"), ROWS_CHECK),
        (np.ones((7, 2), np.int64), "attention_mask: a (row|column) for each"),
        (np.ones((1, 14), np.int64), "attention_mask: a (row|column) for each"),
        (np.ones((2, 0), np.int64), COLUMNS_CHECK),
        (np.ones((0, 7), np.int64), ROWS_CHECK),
        (rows("1111111", "0000000"), TOKENS_CHECK),
        (rows("0000000", "0000000"), TOKENS_CHECK),
        (np.ones((2, 7), np.int32), "Unexpected input data type"),
        (np.ones((2, 7), np.float32), "Unexpected input data type"),
        (np.ones((2, 7), bool), "Unexpected input data type"),
        (np.ones(7, np.int64), "Invalid rank for input: attention_mask"),
        (np.ones((2, 1, 7), np.int64), "Invalid rank for input: attention_mask"),
        (np.ones((2, 1, 7, 7), np.int64), "Invalid rank for input: attention_mask"),
    ],
)
def test_what_is_refused(both: Any, mask: np.ndarray, why: str) -> None:
    with pytest.raises(Exception, match=why):
        Exported(both[0]).step(IDS[:2], mask)


@pytest.mark.parametrize("columns", [1, 6, 7, 9])
def test_a_mask_of_the_new_tokens_alone_is_refused(both: Any, columns: int) -> None:
    """As of any but the past's and theirs."""
    for count in (1, 2):
        ours = Exported(both[0])
        ours.step(IDS[:count], np.ones((count, 7), np.int64))
        with pytest.raises(Exception, match=COLUMNS_CHECK):
            ours.step(IDS[:count, :1], np.ones((count, columns), np.int64))


def test_a_part_of_several_prompts_is_refused(both: Any) -> None:
    ours = Exported(both[0])
    ours.step(IDS[:2], np.ones((2, 7), np.int64))
    with pytest.raises(Exception, match="batch_size must be 1 when sequence_length > 1"):
        ours.step(IDS[:2, :3], np.ones((2, 10), np.int64))


def test_a_past_that_is_longer_than_it_says_is_refused(both: Any) -> None:
    """A buffer with room behind the past: its length would not tell what the mask is of."""
    session = both[0]
    ours = Exported(session)
    ours.step(IDS[:1], np.ones((1, 7), np.int64))
    ours.past = [np.concatenate([each, np.zeros_like(each)], axis=2) for each in ours.past]
    with pytest.raises(Exception, match=COLUMNS_CHECK):
        ours.step(IDS[:1, :1], np.ones((1, 8), np.int64))


def test_no_tokens(both: Any) -> None:
    with pytest.raises(Exception, match=r"Split|attention_mask"):
        Exported(both[0]).step(IDS[:1, :0], np.ones((1, 0), np.int64))
