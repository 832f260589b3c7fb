"""`ernie-rt run` with a temperature, filters, a seed and stop strings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ernie_rt
from support.commands import command

PROMPT = "老师 says"
BASE = ("-n", "12", "--backend", "reference", "--ignore-eos")
SAMPLED = ("--temperature", "1.3", "--top-p", "0.95", "--top-k", "200", "--min-p", "0.001", "--repetition-penalty", "1.2")  # fmt: skip # noqa: E501


def test_options_reach_the_sampler(untrained: Path) -> None:
    with ernie_rt.load(untrained, backend="reference") as model:
        expected = model.generate(
            PROMPT, max_new_tokens=12, ignore_eos=True, temperature=1.3, top_p=0.95, top_k=200, min_p=0.001,
            repetition_penalty=1.2, seed=5,
        )  # fmt: skip
    ran = command("run", untrained, PROMPT, *BASE, *SAMPLED, "--seed", "5")
    assert (ran.code, ran.out) == (0, expected.text + "\n")
    assert ran.err.splitlines()[-1].endswith(" · seed 5")
    stop = expected.text[2:4]
    ran = command("run", untrained, PROMPT, *BASE, *SAMPLED, "--seed", "5", "--stop", "nope", "--stop", stop, "--json")
    answer = json.loads(ran.out)
    assert (answer["text"], answer["finish"], answer["seed"]) == (expected.text[: expected.text.find(stop)], "stop", 5)


def test_an_answer_can_be_had_again(untrained: Path) -> None:
    first = json.loads(command("run", untrained, PROMPT, *BASE, *SAMPLED, "--json").out)
    again = json.loads(command("run", untrained, PROMPT, *BASE, *SAMPLED, "--seed", first["seed"], "--json").out)
    other = json.loads(command("run", untrained, PROMPT, *BASE, *SAMPLED, "--json").out)
    assert first["ids"] == again["ids"] != other["ids"]
    greedy = command("run", untrained, PROMPT, *BASE, "--json")
    assert json.loads(greedy.out)["seed"] is None and "seed" not in greedy.err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "-1", "temperature is out of range; expected a number from 0 to 100; found -1.0"),
        ("--temperature", "nan", "temperature is out of range"),
        ("--top-p", "0", "top_p is out of range"),
        ("--top-k", "-4", "top_k is out of range"),
        ("--seed", "-1", "seed is out of range"),
        ("--stop", "", "an impossible stop string"),
    ],
)
def test_impossible_values_are_said_before_loading(option: str, value: str, message: str, untrained: Path) -> None:
    ran = command("run", untrained, PROMPT, option, value, "--backend", "nope")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1) and message in ran.err
