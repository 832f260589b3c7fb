"""`Model.chat` and `generate` with pictures: what the model is shown, what counts, and what is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ernie_rt
from ernie_rt.async_model import AsyncModel
from ernie_rt.errors import ContextError, MediaError, OptionError, PromptError
from ernie_rt.loading import load
from ernie_rt.session import Model
from ernie_rt.text.messages import Message
from ernie_rt.vision.positions import rope_positions
from support.pages import free_pages
from support.scripted import scripted, write_chat_checkpoint
from support.templates import PLAIN, VISION_THINKING
from support.vision_checkpoint import write_vision_checkpoint

pytestmark = pytest.mark.usefixtures("one_renderer")

PATCH = 100295
ANSWER = [400, 401, 2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pictures")
    return {
        "sees": write_vision_checkpoint(root / "sees"),
        "thinks": write_vision_checkpoint(root / "thinks", VISION_THINKING),
        "text": write_chat_checkpoint(root / "text", PLAIN),
    }


Loader = Callable[..., Model]


@pytest.fixture
def loader(folders: dict[str, Path]) -> Iterator[Loader]:
    """`loader(name, *answers)`: a model that answers so; every test leaves its cache free."""
    models: list[Model] = []

    def open_model(name: str, *answers: list[int], **options: Any) -> Model:
        host = scripted(*(answers or [ANSWER] * 4))
        models.append(load(folders[name], backend="scripted", host=host, **{"max_context": 512} | options))
        models[-1].told = host.backend("scripted")  # type: ignore[attr-defined]
        return models[-1]

    yield open_model
    for model in models:
        assert free_pages(model._engine) == model._executable.cache.pages
        model.close()


def told(model: Model) -> Any:
    """The backend, which remembers what it was asked."""
    return model.told  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "cat.png"
    Image.fromarray(noise(98, 70)).save(path)
    return path


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def picture(source: Any, **options: int) -> dict[str, Any]:
    return {"type": "image", "image": source, **options}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize("form", ["path", "bytes", "array", "Pillow"])
def test_a_picture_of_every_form(loader: Loader, file: Path, form: str) -> None:
    model = loader("sees")
    with Image.open(file) as opened:
        opened.load()
        sources = {"path": file, "bytes": file.read_bytes(), "array": noise(98, 70), "Pillow": opened}
        answer = model.chat(asked(picture(sources[form]), text("What is it?")))
    (prompt,) = told(model).prompts
    assert prompt.count(PATCH) == 8 and answer.prompt_tokens == len(prompt)
    assert told(model).encoded == [32]  # patches, of which four are a token
    start = prompt.index(PATCH)
    assert (told(model).positions[0] == rope_positions(len(prompt), [(start, (1, 2, 4))])).all()
    later = told(model).positions[1]  # they count on behind the largest
    assert (later == told(model).positions[0].max() + 1).all()
    assert answer.asked is not None
    assert [(place, item.tokens) for place, item in answer.asked.items] == [(start, 8)]


def test_a_picture_is_no_larger_than_a_step_takes_in(loader: Loader) -> None:
    model = loader("sees", max_patches=16)
    pixels = noise(98, 70)  # 2 by 4 tokens, of 4 patches each
    (placed,) = model.prompt(asked(picture(pixels))).items
    assert placed[1].merged == (1, 1, 2)
    with pytest.raises(MediaError, match=r"image 1: more patches than a step of the model takes in.* 16 .*found 32"):
        model.prompt(asked(picture(pixels, max_pixels=10**6)))
    larger = loader("sees").prompt(asked(picture(pixels)))
    with pytest.raises(MediaError, match="more patches than a step"):
        model.chat(larger)


def test_pictures_in_a_text_to_continue(loader: Loader) -> None:
    model = loader("sees")
    answer = model.generate([text("A cat: "), picture(noise(56, 56)), text(" and")], max_new_tokens=2)
    (prompt,) = told(model).prompts
    shown = model.tokenizer.decode([id for id in prompt if id != PATCH], skip_special=False)
    assert shown == "A cat: Picture 1:<|IMAGE_START|><|IMAGE_END|> and" and prompt.count(PATCH) == 4
    assert answer.ids == (400, 401)
    model.generate(["A cat: ", picture(noise(56, 56)), " and"], max_new_tokens=2)
    assert told(model).prompts[-1] == prompt
    with pytest.raises(PromptError, match="the prompt, part 1"):
        model.generate([{"type": "image"}])


def test_a_stream_and_a_rendered_prompt(loader: Loader) -> None:
    model = loader("sees")
    prompt = model.prompt(asked(picture(noise(56, 56)), text("x")))
    with model.chat(prompt, stream=True) as stream:
        assert [piece.id for piece in stream] == ANSWER
    assert stream.generation.prompt_tokens == len(prompt.ids)
    with pytest.raises(OptionError, match="not rendered yet"):
        model.chat(prompt, thinking=True)


def test_many_at_once(loader: Loader) -> None:
    model = loader("sees", max_sequences=2)

    async def main() -> list[int]:
        async with AsyncModel(model) as served:
            streams = [served.chat(asked(picture(noise(56, 56, seed)), text("x"))) for seed in range(3)]
            rendered = await asyncio.to_thread(model.prompt, asked(picture(noise(56, 56)), text("x")))
            streams.append(served.chat(rendered))
            return [len([piece async for piece in stream]) for stream in streams]

    assert asyncio.run(main()) == [3] * 4
    assert told(model).encoded == [16] * 3  # the fourth is the first again


def test_a_conversation_goes_on(loader: Loader, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ernie_rt.text import media_reader

    read: list[object] = []
    load_image = media_reader.load_image
    monkeypatch.setattr(media_reader, "load_image", lambda source, **o: read.append(source) or load_image(source, **o))
    model = loader("sees")
    first = model.prompt(asked(picture(file), text("What is it?")))
    messages = [Message("user", (m := model_media(file), "What is it?"))]
    answer = model.chat(messages)
    second = model.chat([*messages, answer.message, Message("user", "And now?")])
    assert read == [file, file]  # once for each object
    assert second.cached_tokens >= len(first.ids) - 10 and told(model).encoded == [32]
    assert m.kind == "image"


def model_media(file: Path) -> Any:
    from ernie_rt.text.media import Media

    return Media("image", file)


def test_places_in_a_picture_may_be_chosen(loader: Loader) -> None:
    """A model whose text alone is run never names one."""
    place = PATCH + 2
    assert loader("sees", [place, 2]).chat(asked(picture(noise(56, 56)), text("x"))).ids == (place, 2)
    assert place not in loader("sees", [place, 2], text_only=True).chat(asked(text("x")), max_new_tokens=1).ids


def test_penalties_know_nothing_of_placeholders(loader: Loader) -> None:
    few, many = (
        loader("sees").chat(asked(picture(noise(side, side)), text("x")), repetition_penalty=1.5, logprobs=3).logprobs
        for side in (56, 224)
    )
    assert [each.top for each in few] == [each.top for each in many]


def test_models_that_read_text_alone(loader: Loader) -> None:
    parts = asked(picture(noise(56, 56)), text("x"))
    for model in (loader("text"), loader("sees", text_only=True)):
        with pytest.raises(PromptError, match=r"reads text alone; found 1 image .*VL-28B-A3B, .*text_only"):
            model.chat(parts)
        with pytest.raises(PromptError, match="reads text alone"):
            model.generate(parts[0]["content"])
        assert model.chat(asked(text("x"))).ids == tuple(ANSWER)
    with pytest.raises(PromptError, match="a token of pictures"):
        loader("sees", text_only=True).generate([5, PATCH])


def test_ids_without_their_picture_are_refused(loader: Loader) -> None:
    model = loader("sees")
    with pytest.raises(PromptError, match="found 2 of 100295"):
        model.generate([5, PATCH, PATCH, 6])
    with pytest.raises(PromptError, match="without it"):
        model.logits([PATCH])
    assert model.generate([5, 101304, 101305], max_new_tokens=1).ids  # markers are tokens like others


def test_what_is_too_long_is_said_before_it_is_decoded(loader: Loader) -> None:
    model = loader("sees")
    large = picture(noise(1920, 1080), max_pixels=4816896)
    with pytest.raises(ContextError, match=r"at most 512 tokens; found .* of text, image 1 4, image 2 2,691"):
        model.chat(asked(picture(noise(56, 56)), large, text("x")))
    wide = loader("sees", max_context=4096)
    assert wide.chat(asked(large, text("x"))).prompt_tokens > 2691
    small = loader("sees", max_context=4096).chat(asked(picture(noise(1920, 1080)), text("x")))
    assert small.prompt_tokens < 1100  # on a CPU


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "image 2"),
        (b"GIF89a", "image 2"),
        (Path("nowhere.png"), "nowhere.png"),
        (Path(), "folder"),
        (Path(__file__), "test_pictures.py"),
        (np.zeros((5, 5), np.uint8), "image 2"),
        (np.zeros((56, 56, 3), np.float32), "image 2"),
        (np.zeros((1, 300, 3), np.uint8), "image 2"),
        (object(), "image 2"),
    ],
)
def test_pictures_that_are_none(loader: Loader, source: Any, says: str) -> None:
    with pytest.raises(MediaError) as caught:
        loader("sees").chat(asked(picture(noise(56, 56)), picture(source), text("x")))
    assert says in str(caught.value)


def test_thinking(loader: Loader) -> None:
    model = loader("thinks")
    reasons = [*model.tokenizer.encode("hm"), model.tokenizer.encode_special("</think>")]
    model = loader("thinks", [*reasons, *ANSWER], ANSWER)
    thought = model.chat(asked(picture(noise(56, 56)), text("x")))
    assert thought.reasoning == "hm" and thought.text
    assert model.chat(asked(picture(noise(56, 56)), text("x")), thinking=False).reasoning == ""
    with pytest.raises(OptionError, match="thinking is for conversations"):
        model.generate("x", thinking=True)
    with pytest.raises(OptionError, match="no switch"):
        loader("text").chat(asked(text("x")), thinking=True)


def test_the_documentation_runs(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of docs/chat.md with a picture."""
    page = (Path(__file__).parents[1] / "docs" / "chat.md").read_text("utf-8")
    (block,) = (found for found in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if '"image"' in found)
    model = loader("sees")
    said = [model.tokenizer.encode(each) for each in ("51.20", " 51.20")]
    model = loader("sees", *[[*each, 2] for each in said])
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(98, 70)).save("receipt.png")
    monkeypatch.setattr(ernie_rt, "load", lambda ref: model)
    monkeypatch.setattr(model, "close", lambda: None)
    exec(block, {})
    assert re.fullmatch(r"51\.20 \d\d\n 51\.20\n", capsys.readouterr().out)
    monkeypatch.undo()
