"""Pictures on the command line: `run --image`, and `/image` in a talk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ernie_rt.cli.completion import files
from ernie_rt.cli.pictures import typed_path
from support.commands import Outcome, command
from support.media import video
from support.says import Says
from support.scripted import write_chat_checkpoint
from support.templates import PLAIN
from support.vision_checkpoint import write_vision_checkpoint

pytestmark = pytest.mark.usefixtures("one_renderer")

PATCH = "<|IMAGE_PLACEHOLDER|>"
ONE = f"<|IMAGE_START|>{PATCH * 8}<|IMAGE_END|>"
OTHER = f"<|IMAGE_START|>{PATCH * 4}<|IMAGE_END|>"
BEGIN = "<|begin_of_sentence|>"
END = "\nAssistant: <think></think>"


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vision_checkpoint(tmp_path_factory.mktemp("sees") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one.png` of 8 tokens, `an other.jpg` of 4, and `large.png`."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, (width, height) in {"one.png": (98, 70), "an other.jpg": (56, 56), "large.png": (1920, 1080)}.items():
        Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "ernie-rt" / "chat"


def run(folder: Path, *arguments: object) -> Outcome:
    return command("run", folder, "--backend", "scripted", *arguments)


def chat(folder: Path, typed: str, *options: object) -> Outcome:
    return command("chat", folder, "--backend", "scripted", *options, stdin=typed.encode())


def test_pictures_come_before_the_question(sees: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(sees, monkeypatch, "Two.</s>", "</think>\nTwo.</s>", "go</s>")
    shown = ("--image", pictures / "one.png", "--image", pictures / "an other.jpg")
    ran = run(sees, "How many?", *shown, "-v")
    assert (ran.code, ran.out) == (0, "Two.\n")
    assert says.asked == [f"{BEGIN}User: Picture 1:{ONE}Picture 2:{OTHER}How many?{END}"]
    assert "image 1: 112x56 pixels, 8x4 patches, 8 tokens" in ran.err and "image 2: 56x56 pixels" in ran.err
    quiet = run(sees, "How many?", *shown, "-q", "--thinking", "--system", "Be brief.")
    assert (quiet.out, quiet.err) == ("Two.\n", "")
    assert says.asked[1] == says.asked[0].replace(BEGIN, f"{BEGIN}Be brief.\n")[:-8]
    raw = run(sees, "How many?", *shown, "--raw")
    assert raw.out == "go\n" and says.asked[2] == f"Picture 1:{ONE}Picture 2:{OTHER}How many?"


def test_a_large_picture_is_made_smaller_on_a_cpu(sees: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(sees, monkeypatch, "a</s>", "a</s>")
    ran = run(sees, "x", "--image", pictures / "large.png", "--device", "cpu")
    assert says.backend.prompts[0].count(100295) <= 1024 and "image 1: 1920x1080 pixels were made" in ran.err
    whole = run(sees, "x", "--image", pictures / "large.png", "--max-pixels", "3000000")
    assert says.backend.prompts[1].count(100295) == 2691 and "were made" not in whole.err


def test_a_video_with_one_frame_more_than_its_limit(
    sees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five are taken, the last of them twice: three pairs of 300 tokens."""
    film = tmp_path / "a.mp4"
    film.write_bytes(video(24, rate=10))
    says = Says(sees, monkeypatch, "a</s>")
    ran = run(sees, "x", "--video", film, "--max-frames", "4", "-v")
    assert ran.code == 0 and "video 1: 6 frames of 560x420 pixels, 40x30 patches, 900 tokens" in ran.err
    assert says.backend.prompts[0].count(100295) == 900
    refused = run(sees, "x", "--video", film, "--max-frames", "4", "--max-context", "800")
    assert refused.code == 2 and "of text, video 1 900" in refused.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "nowhere.png"], "nowhere.png: there is no such file"),
        (["--image", ""], "found a folder"),
        (["--image", "https://example.org/a.png"], "nothing is fetched"),
        (["--image", "data:image/png;base64,AAAA"], "nothing is fetched"),
        (["--image", "{pictures}"], "found a folder"),
        (["--image", "{pictures}/notes.txt"], "notes.txt"),
        (["--video", "{pictures}/one.png"], "one.png"),
        (["--max-pixels", "5000"], "--max-pixels is about --image"),
        (["--image", "{pictures}/one.png", "--fps", "1"], "--fps is about --video"),
        (["--max-frames", "4"], "--max-frames is about --video"),
        (["--image", "{pictures}/one.png", "--max-pixels", "100"], "max_pixels"),
        (["--image", "{pictures}/one.png", "--text-only"], "reads text alone"),
        (["--image", "{pictures}/one.png", "--max-context", "9"], "of text, image 1 8"),
        (["--raw", "--thinking"], "--thinking needs a chat template"),
    ],
)
def test_what_cannot_be_shown(sees: Path, pictures: Path, arguments: list[str], says: str) -> None:
    ran = run(sees, "x", *(each.format(pictures=pictures) for each in arguments))
    assert ran.code == 2 and ran.out == "" and says in ran.err and ran.err.count("\n") == 1


def test_a_model_of_text_is_told_apart(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = write_chat_checkpoint(tmp_path / "plain", PLAIN)
    Says(plain, monkeypatch)
    assert "Use a vision-language model (demo-vl, VL-28B-A3B" in run(plain, "x", "--image", pictures / "one.png").err
    ran = chat(plain, f"/image {pictures / 'one.png'}\n")
    assert ran.code == 2 and "reads text alone" in ran.err


def test_without_what_reads_videos(sees: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ernie_rt.vision import decoding

    (pictures / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(64))
    found = decoding.find_spec
    monkeypatch.setattr(decoding, "find_spec", lambda name: None if name == "av" else found(name))
    ran = run(sees, "x", "--video", pictures / "film.mp4")
    assert ran.code != 0 and "pip install 'ernie-rt[vision]'" in ran.err


def test_a_talk_about_pictures(sees: Path, pictures: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(sees, monkeypatch, "A cat.</s>", "Two.</s>", "Again.</s>", "A dog.</s>", "x</s>")
    one, other = pictures / "one.png", pictures / "an other.jpg"
    typed = f"/image {one}\nWhat is it?\n/image '{other}'\n/image {one}\nHow many?\n/retry\nAnd?\n/reset\nx\n"
    ran = chat(sees, typed)
    assert (ran.code, ran.out) == (0, "A cat.\nTwo.\nAgain.\nA dog.\nx\n")
    first = f"{BEGIN}User: Picture 1:{ONE}What is it?"
    second = f"{first}\nAssistant: A cat.<|end_of_sentence|>User: Picture 2:{OTHER}Picture 3:{ONE}How many?"
    last = f"{second}\nAssistant: Again.<|end_of_sentence|>User: And?"
    assert says.asked == [each + END for each in (first, second, second, last, f"{BEGIN}User: x")]
    assert says.backend.encoded == [32, 16]  # once each
    assert "image 3, which goes with your next message: 112x56 pixels, 8x4 patches, 8 tokens" in ran.err


def test_a_talk_with_pictures_is_taken_up(
    sees: Path, pictures: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = Says(sees, monkeypatch, "A cat.</s>", "Yes.</s>", "Yes.</s>")
    monkeypatch.chdir(pictures)
    assert chat(sees, "/image one.png\nWhat is it?\n/save cats\n", "--max-pixels", "9000").code == 0
    kept = json.loads((state / "cats.json").read_text())["messages"][0]["content"]
    assert kept[0] == {"type": "image", "image": str(pictures / "one.png"), "max_pixels": 9000}
    monkeypatch.chdir("/")
    ran = chat(sees, "/list\nSure?\n", "--load", "cats")
    assert ran.out == "Yes.\n" and "What is it?" in ran.err
    assert says.asked[1].startswith(f"{BEGIN}User: Picture 1:{ONE}What is it?\nAssistant: A cat.")
    file = state / "cats.json"
    file.write_text(file.read_text().replace("one.png", "gone.png"))
    gone = chat(sees, "Sure?\n", "--load", "cats")
    assert gone.code == 2 and "gone.png: there is no such file" in gone.err


def test_pictures_that_go_with_no_message(sees: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = Says(sees, monkeypatch, "x</s>", "y</s>")
    ran = chat(sees, f"/image {pictures / 'one.png'}\n/image\nx\n/image {pictures / 'one.png'}\n/reset\ny\n")
    assert says.asked == [f"{BEGIN}User: x{END}", f"{BEGIN}User: y{END}"]
    assert "nothing goes with your next message" in ran.err
    for path in ("../../../../etc/passwd", "https://x.org/a.png", "/", "nowhere.png", "'"):
        wrong = chat(sees, f"/image {path}\nx\n")
        assert wrong.code == 2 and wrong.out == "" and "Traceback" not in wrong.err
        assert "stopped at message 1" in wrong.err


def test_paths_as_they_are_typed(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    for typed in ("an other.jpg", "'an other.jpg'", '"an other.jpg"', "an\\ other.jpg"):
        assert typed_path(typed) == "an other.jpg"
    for typed in ("'it", "a b", ""):
        assert typed_path(typed) == typed
    assert files("o") == ["one.png"] and files("") == ["an other.jpg", "film.mp4", "large.png", "notes.txt", "one.png"]
