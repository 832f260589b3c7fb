"""`ernie-rt run`: the answer on standard output, everything else on standard error, and the ways to end."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import ernie_rt
from ernie_rt.generation.stream import Piece, Stream
from ernie_rt.weights.source import CheckpointSource
from support.commands import Outcome, command, start
from support.terminal import Terminal

PROMPT = "老师 says"
OPTIONS = ("-n", "8", "--backend", "reference", "--ignore-eos")
CONVERTED = " of weights converted from bfloat16 to float32"
SUMMARY = re.compile(
    r"prefill \d+\.\d tokens/s · decode (\d+\.\d tokens/s|-) · peak \d+\.\d [MG]iB · reference · cpu · float32"
)


@pytest.fixture(scope="module")
def expected(untrained: Path) -> ernie_rt.Generation:
    with ernie_rt.load(untrained, backend="reference") as model:
        return model.generate(PROMPT, max_new_tokens=8, ignore_eos=True)


def test_the_answer_is_all_there_is_on_standard_output(untrained: Path, expected: ernie_rt.Generation) -> None:
    ran = command("run", untrained, PROMPT, *OPTIONS)
    assert ran.code == 0 and ran.out == expected.text + "\n"
    (line,) = ran.err.splitlines()
    assert SUMMARY.fullmatch(line)
    assert command("run", untrained, PROMPT, *OPTIONS, "--quiet") == Outcome(0, expected.text + "\n", "")
    first, note, *_, last = command("run", untrained, PROMPT, *OPTIONS, "-v").err.splitlines()
    assert first == "backend reference (asked for)" and note.endswith(CONVERTED)
    assert SUMMARY.fullmatch(last)


def test_what_auto_passed_over_is_said(untrained: Path) -> None:
    ran = command("-p", "no:onnx", "run", untrained, PROMPT, "-n", "2", "--threads", "1")
    first, _ = ran.err.splitlines()
    assert ran.code == 0 and first == "backend eager (predicted to be the fastest that is usable; onnx is off)"
    assert command("-p", "no:onnx", "run", untrained, PROMPT, "-n", "2", "--threads", "1", "-q").err == ""


def test_one_token_has_no_decode_speed(untrained: Path) -> None:
    ran = command("run", untrained, PROMPT, "-n", "1", "--backend", "reference")
    assert "· decode - ·" in ran.err.splitlines()[-1]


def test_the_text_comes_piece_by_piece(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    following = Stream.__next__

    def watched(self: Stream) -> Piece:
        seen.append(sys.stdout.answers.buffer.tell())
        return following(self)

    monkeypatch.setattr(Stream, "__next__", watched)
    assert command("run", untrained, PROMPT, *OPTIONS).code == 0
    assert len(seen) == 9 and seen == sorted(seen) and len(set(seen)) > 4


def test_json_is_one_object(untrained: Path, expected: ernie_rt.Generation) -> None:
    ran = command("run", untrained, PROMPT, *OPTIONS, "--json")
    answer = json.loads(ran.out)
    assert ran.code == 0 and ran.out.count("\n") == 1 and SUMMARY.fullmatch(ran.err.splitlines()[-1])
    assert answer["text"] == expected.text and answer["ids"] == list(expected.ids)
    assert (answer["finish"], answer["prompt_tokens"], answer["new_tokens"]) == ("length", expected.prompt_tokens, 8)
    assert (answer["backend"], answer["device"], answer["dtype"]) == ("reference", "cpu", "float32")
    for speed in ("prefill_tokens_per_second", "decode_tokens_per_second"):
        assert answer[speed] > 0
    assert answer["peak_private_bytes"] > answer["device_bytes"] > 0


def test_the_end_of_sequence_ends_it(untrained: Path, expected: ernie_rt.Generation, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    stop = expected.ids[3]
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"eos_token_id": 2', f'"eos_token_id": {stop}'))
    answer = json.loads(command("run", folder, PROMPT, "-n", "8", "--backend", "reference", "--json").out)
    assert answer["finish"] == "stop" and answer["ids"] == list(expected.ids[: expected.ids.index(stop) + 1])


def test_a_prompt_from_anywhere(untrained: Path, expected: ernie_rt.Generation, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT, encoding="utf-8")
    given: list[Outcome] = [
        command("run", untrained, "--file", file, *OPTIONS),
        command("run", untrained, "-f", file, *OPTIONS, stdin=b"not this"),
        command("run", untrained, "-", *OPTIONS, stdin=PROMPT.encode()),
        command("run", untrained, *OPTIONS, stdin=PROMPT.encode()),
    ]
    assert [(ran.code, ran.out) for ran in given] == [(0, expected.text + "\n")] * 4


@pytest.mark.parametrize("prompt", [PROMPT, "-"])
def test_a_prompt_from_two_places(prompt: str, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text(PROMPT)
    refused(command("run", untrained, prompt, "-f", tmp_path / "prompt", stdin=b"x"), "a prompt was given twice")


def test_prompts_that_are_none(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin").write_bytes("Grüße".encode("latin-1"))
    (tmp_path / "empty").touch()
    refused(command("run", untrained), "the prompt is empty")
    refused(command("run", untrained, ""), "the prompt is empty")
    refused(command("run", untrained, "-f", tmp_path / "empty"), "the prompt is empty")
    refused(command("run", untrained, "-f", tmp_path / "absent"), "there is no such file")
    refused(command("run", untrained, "-f", tmp_path), "not a regular file; found a folder")
    refused(command("run", untrained, "-f", tmp_path / "latin"), "not UTF-8; found byte 0xfc at 2")
    refused(command("run", untrained, "-", stdin=b"caf\xe9"), "not UTF-8; found byte 0xe9 at 3")
    refused(command("run", untrained, "\udcff"), "the prompt is not UTF-8; found byte 0xff at 0")
    monkeypatch.setattr("ernie_rt.cli.prompts.PROMPT_LIMIT", 10)
    refused(command("run", untrained, "-", stdin=b"x" * 11), "standard input is too long for a prompt")
    (tmp_path / "long").write_text("x" * 11)
    refused(command("run", untrained, "-f", tmp_path / "long"), "too large; expected at most 10 bytes; found 11")


def refused(ran: Outcome, message: str) -> None:
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran
    assert ran.err.startswith("ernie-rt: ") and message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'MODEL'"),
        (("{untrained}", "x", "--nonsense"), "No such option: --nonsense"),
        (("{untrained}", "x", "-n", "0"), "greater than or equal to 1"),
        (("{untrained}", "x", "-n", "many"), "Invalid value for '--max-new-tokens'"),
        (("{untrained}", "x", "--threads", "0"), "greater than or equal to 1"),
        (("{untrained}", "x", "--memory", "12 parsecs"), "not a size; expected a number such as 4096, 32k or 12GiB"),
        (("{untrained}", "x", "--dtype", "fp8"), "unknown dtype 'fp8'"),
        (
            ("{untrained}", "x", "--backend", "nope"),
            "no backend 'nope'; expected one of cudagraph, eager, onnx, reference",
        ),
        (("no such model", "x"), "'no such model': no such model; expected a folder, demo, demo-vl, 0.3B"),
        (("{untrained}/config.json", "x"), "this is a file of a model; expected a folder. Name the folder it lies in"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], message: str, untrained: Path) -> None:
    ran = command("run", *(argument.format(untrained=untrained) for argument in arguments))
    assert ran.code == 2 and ran.out == "" and message in ran.err and "Traceback" not in ran.err


def test_what_does_not_fit_is_exit_code_1(untrained: Path) -> None:
    ran = command("run", untrained, PROMPT, *OPTIONS, "--memory", "64k")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "does not fit into the memory limit; expected at most 64.0 KiB" in ran.err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (
            "--device",
            "cuda:77",
            "has no device 'cuda:77' here; expected one of cpu. It runs on cpu alone; backends for ",
        ),
        ("--dtype", "float16", "backend 'reference' does not compute in float16 on cpu"),
    ],
)
def test_what_a_backend_does_not_offer_is_bad_usage(option: str, value: str, message: str, untrained: Path) -> None:
    ran = command("run", untrained, PROMPT, *OPTIONS, option, value)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1) and message in ran.err


def test_which_tensors_are_skipped(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    for name in ("a", "b"):
        tensors[f"model.mtp_{name}"] = tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    ran = command("run", folder, PROMPT, *OPTIONS, "-v")
    assert ran.code == 0 and "2 stored tensors skipped: speculative head" in ran.err


def test_control_characters_of_a_file_do_not_reach_the_terminal(untrained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(untrained, tmp_path / "model")
    header = json.dumps({"a\n\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    refused(command("run", folder, PROMPT), r"a\n\x1b[2J")


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Callable[..., subprocess.Popen[bytes]]:
    """`ernie-rt run` in a process of its own, ended with the test."""

    def begin(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        process = start("run", *arguments, **options)

        def end() -> None:
            process.kill()
            process.communicate()

        request.addfinalizer(end)
        return process

    return begin


LONG = ("x", "-n", "4000", "--ignore-eos", "--backend", "reference", "-v")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_keeps_what_there_is(
    as_json: bool, untrained: Path, child: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = child(untrained, *LONG, *(["--json"] if as_json else []), stdout=out)
        assert process.stderr is not None
        assert process.stderr.readline() == b"backend reference (asked for)\n"
        assert process.stderr.readline().decode().rstrip().endswith(CONVERTED)  # it is loaded
        deadline = time.monotonic() + 20
        while not as_json and (tmp_path / "out").stat().st_size < 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    text = (tmp_path / "out").read_text(errors="replace")
    assert process.returncode == 130
    assert SUMMARY.fullmatch(err.decode().splitlines()[-1])
    if as_json:
        answer = json.loads(text)
        assert answer["finish"] == "cancelled" and len(answer["ids"]) == answer["new_tokens"] < 4000
    else:
        assert len(text) > 50 and text.endswith("\n")


def test_an_interrupt_while_loading(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointSource, "fill", interrupted)
    ran = command("run", untrained, PROMPT, *OPTIONS)
    assert (ran.code, ran.out, ran.err) == (130, "", "ernie-rt: interrupted\n")


def test_a_reader_that_leaves_ends_it_quietly(untrained: Path, child: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = child(untrained, *LONG)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    first, note, *_ = err.decode().splitlines()
    assert process.wait(20) == 0 and first == "backend reference (asked for)" and note.endswith(CONVERTED)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_named_error(untrained: Path, child: Callable[..., subprocess.Popen[bytes]]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = child(untrained, *LONG, stdout=full)
        _, err = process.communicate(timeout=20)
    last = err.decode().splitlines()[-1]
    assert process.returncode == 1
    assert last == "ernie-rt: standard output cannot be written; found No space left on device"


def test_streams_that_are_closed(untrained: Path, expected: ernie_rt.Generation) -> None:
    """`>&-`, `2>&-`, `<&-`."""
    ran = command("run", untrained, PROMPT, *OPTIONS, closed="stdout")
    assert (ran.code, ran.out) == (0, "") and SUMMARY.fullmatch(ran.err.splitlines()[-1])
    for options in ({"closed": "stderr"}, {"closed": "stdin"}):
        ran = command("run", untrained, PROMPT, *OPTIONS, **options)
        assert (ran.code, ran.out) == (0, expected.text + "\n")
    refused(
        command("run", untrained, closed="stdin"), "no prompt. Give it as an argument, by --file, or on standard input"
    )


def test_a_terminal_shows_progress_and_the_answer_stays_clean(untrained: Path, expected: ernie_rt.Generation) -> None:
    with Terminal("run", untrained, PROMPT, *OPTIONS, "-v", stdout=subprocess.PIPE) as terminal:
        shown = terminal.rest()
        assert terminal.process.stdout is not None
        with terminal.process.stdout as answer:
            assert answer.read().decode() == expected.text + "\n" and terminal.process.wait(20) == 0
    assert "loading" in shown and "backend reference (asked for)" in shown and "prefill" in shown


def test_a_prompt_that_the_last_command_has_computed(untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text(PROMPT * 120)
    kept = ("--cache-dir", tmp_path / "cache", "--cache-size", "64MiB")
    asked = ("run", untrained, "-f", tmp_path / "prompt", *OPTIONS, *kept, "--json")
    first, second = (json.loads(command(*asked).out) for _ in range(2))
    assert first["cached_tokens"] == 0 and second["cached_tokens"] >= 256
    assert first["ids"] == second["ids"]
    said = command(*asked[:-1]).err
    assert f"{second['cached_tokens']:,} of {second['prompt_tokens']:,} prompt tokens from the cache · prefill" in said


def test_a_cache_that_cannot_be_kept_is_named(untrained: Path, tmp_path: Path) -> None:
    ran = command("run", untrained, PROMPT, *OPTIONS, "--cache-size", "1GiB")
    assert ran.code == 2 and "cache_bytes bounds a cache on disk, and there is none" in ran.err
    (tmp_path / "file").touch()
    ran = command("run", untrained, PROMPT, *OPTIONS, "--cache-dir", tmp_path / "file")
    assert ran.code == 1 and "the folder for the cache cannot be made" in ran.err


def test_deterministic_by_a_backend_that_can(untrained: Path) -> None:
    ran = command("run", untrained, PROMPT, "-n", "2", "--threads", "1", "--deterministic")
    first, _ = ran.err.splitlines()
    assert ran.code == 0
    assert first.startswith(
        "backend eager (predicted to be the fastest that is usable; "
        "onnx: backend 'onnx' cannot be deterministic: its attention"
    )
    refused = command("run", untrained, PROMPT, *OPTIONS, "--deterministic")
    assert refused.code == 1 and "backend 'reference' cannot be deterministic: " in refused.err
