"""Pictures and videos on the page: how they come, how they look, and what becomes of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from browser import CTRL, Page
from page_server import Answer, ScriptedServer
from support.browsing import Open, ended, kept, needs_browser, send
from support.pictures import picture, uri

pytestmark = needs_browser

SEES = {"architecture": {"input_modalities": ["text", "image", "video"]}, "max_body_bytes": 200_000}
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(40)


@pytest.fixture
def page(opened: Open, server: ScriptedServer) -> Page:
    server.card = SEES
    page = opened()
    page.wait("!document.querySelector('#attach').hidden")
    return page


def waits(page: Page, count: int) -> None:
    page.wait(f"document.querySelectorAll('#tray li').length === {count}")


def paste(page: Page, data: bytes, name: str) -> None:
    base64_text = json.dumps(base64.b64encode(data).decode())
    page.evaluate(
        f"{{ const bytes = Uint8Array.from(atob({base64_text}), (c) => c.charCodeAt(0));"
        f" const data = new DataTransfer(); data.items.add(new File([bytes], {json.dumps(name)}));"
        " document.querySelector('#message').dispatchEvent(new ClipboardEvent('paste',"
        " {clipboardData: data, bubbles: true, cancelable: true})); }"
    )


def test_a_picture_is_chosen_dropped_pasted_and_sent(page: Page, server: ScriptedServer, tmp_path: Path) -> None:
    chosen, dropped, pasted = (picture(seed=seed, format=name) for seed, name in enumerate(("PNG", "JPEG", "WEBP")))
    (tmp_path / "chosen.png").write_bytes(chosen)
    (tmp_path / "dropped.png").write_bytes(dropped)  # its name lies
    (tmp_path / "film.mp4").write_bytes(VIDEO)
    page.choose("#file", tmp_path / "chosen.png")
    waits(page, 1)
    page.drop(600, 300, tmp_path / "dropped.png", tmp_path / "film.mp4")
    waits(page, 3)
    paste(page, pasted, "pasted")
    waits(page, 4)
    assert page.evaluate("[...document.querySelectorAll('#tray img')].map((image) => image.naturalWidth)") == [56] * 3
    assert "film.mp4" in page.text("#tray")
    server.script.append(Answer(["A cat."]))
    send(page, "What is this?")
    ended(page)
    assert page.evaluate("document.querySelector('#tray').hidden")
    (content,) = [message["content"] for message in server.requests[-1]["messages"]]
    urls = [part[part["type"]]["url"] for part in content[:-1]]
    assert urls == [
        uri(chosen), uri(dropped, "data:image/jpeg;base64,"), uri(VIDEO, "data:video/mp4;base64,"),
        uri(pasted, "data:image/webp;base64,"),
    ]  # fmt: skip
    assert content[-1] == {"type": "text", "text": "What is this?"}
    assert page.evaluate("[...document.querySelectorAll('.user img')].map((image) => image.alt)") == [
        "chosen.png", "dropped.png", "pasted",
    ]  # fmt: skip
    server.script.append(Answer(["Yes."]))
    send(page, "Sure?")
    ended(page)
    assert server.requests[-1]["messages"][0]["content"] == content, "as long as the conversation goes on"


@pytest.mark.long
def test_what_waits_can_be_removed_by_the_keyboard(page: Page, server: ScriptedServer, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(seed=number))
    page.choose("#file", *(tmp_path / f"{number}.png" for number in range(3)))
    waits(page, 3)
    page.evaluate("document.querySelector('#tray li:nth-child(2) button').focus()")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove 1.png"
    page.press("Enter")
    waits(page, 2)
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove 2.png"
    page.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove 0.png"
    page.click("#language")
    assert page.evaluate("document.querySelector('#tray button').ariaLabel") == "移除 0.png"
    page.click("#tray button")
    assert page.evaluate("document.activeElement.id") == "message"
    server.script.append(Answer(["Hello"]))
    send(page, "Hi")
    ended(page)
    assert server.requests[-1]["messages"] == [{"role": "user", "content": "Hi"}]


@pytest.mark.long
def test_a_picture_alone_is_a_message_and_stays_with_its_text(page: Page, server: ScriptedServer) -> None:
    paste(page, picture(), "cat.png")
    waits(page, 1)
    server.script.append(Answer(["A cat."]))
    page.press("Enter")
    ended(page)
    (content,) = [message["content"] for message in server.requests[-1]["messages"]]
    assert [part["type"] for part in content] == ["image_url"] and page.text("#conversations") == "cat.png"
    page.evaluate("document.querySelector('.user .actions button').click()")
    page.type("And this?")
    server.script.append(Answer(["A cat."]))
    page.press("Enter")
    ended(page)
    (content,) = [message["content"] for message in server.requests[-1]["messages"]]
    assert [part["type"] for part in content] == ["image_url", "text"]


@pytest.mark.long
def test_what_is_kept_does_not_grow_with_pictures(page: Page, server: ScriptedServer) -> None:
    paste(page, picture(), "cat.png")
    waits(page, 1)
    server.script += [Answer(["A cat."]), Answer(["I do not see it."])]
    send(page, "What is this?")
    ended(page)
    (conversation,) = kept(page)
    (file,) = conversation["messages"][0]["files"]
    assert (file["type"], file["name"]) == ("image/png", "cat.png") and len(json.dumps(conversation)) < 1000
    page.press("k", CTRL)
    page.click("#conversations button")
    page.wait("document.querySelector('.user img')")
    page.reload()
    page.wait("document.querySelector('.user figure.gone')")
    assert "cat.png is no longer here" in page.text(".user")
    send(page, "What was it?")
    ended(page)
    assert server.requests[-1]["messages"][0] == {"role": "user", "content": "What is this?"}


@pytest.mark.long
def test_what_is_not_taken_is_told(page: Page, server: ScriptedServer, tmp_path: Path) -> None:
    for name, data, words in (
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg is no picture or video"),
        ("b.heic", b"\0\0\0 ftypheic", "b.heic is no picture or video"),
        ("c.png", b"", "c.png is no picture or video"),
        ("d.png", picture() + bytes(150_000), "takes files of up to 0.14 MiB"),
    ):
        (tmp_path / name).write_bytes(data)
        page.drop(300, 500, tmp_path / name)
        page.wait(f"document.querySelector('#notice').innerText.includes({json.dumps(words)})")
        waits(page, 0)
    for seed in range(2):
        paste(page, picture(seed=seed) + bytes(80_000), f"{seed}.png")
        waits(page, seed + 1)
    send(page, "Hi")
    page.wait("document.querySelector('#notice').innerText.includes('more than the 0.19 MiB')")
    assert not server.requests and page.evaluate("document.querySelector('#message').value") == "Hi"
    page.click("#tray button")
    server.script.append(Answer(["Hello"]))
    page.click("#send")
    ended(page)


@pytest.mark.long
def test_a_folder_keeps_no_file_from_being_taken(page: Page, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(picture())
    page.drop(300, 500, tmp_path / "folder", tmp_path / "a.png")
    page.wait("document.querySelector('#notice').innerText.includes('folder is no picture or video')")
    waits(page, 1)


@pytest.mark.long
def test_text_that_is_copied_with_a_picture_of_it_is_text(page: Page) -> None:
    taken = page.evaluate(
        "(() => { const data = new DataTransfer(); data.items.add(new File(['x'], 'cells.png'));"
        " data.setData('text/plain', '1'); data.setData('text/html', '<b>1</b>');"
        " return !document.querySelector('#message').dispatchEvent("
        "new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})); })()"
    )
    assert taken is False


@pytest.mark.long
def test_more_than_a_string_has_room_for(page: Page, server: ScriptedServer) -> None:
    server.card = SEES | {"max_body_bytes": 200_000_000}
    page.reload()
    page.wait("!document.querySelector('#attach').hidden")
    page.evaluate(
        "{ const data = new DataTransfer(), bytes = new Uint8Array(1e8); bytes.set([0xff, 0xd8, 0xff]);"
        " for (let i = 0; i < 5; i++) data.items.add(new File([bytes], `${i}.jpg`));"
        " document.querySelector('#message').dispatchEvent(new ClipboardEvent('paste',"
        " {clipboardData: data, bubbles: true, cancelable: true})); }"
    )
    waits(page, 5)
    send(page, "Hi")
    page.wait("document.querySelector('#notice').innerText.includes('more than the 191 MiB')")
    assert not server.requests


@pytest.mark.long
def test_fifty_at_once_and_sent_once(page: Page, server: ScriptedServer, tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.gif").write_bytes(picture(28, 28, "GIF", seed=number)[:1500])
    page.drop(300, 500, *(tmp_path / f"{number}.gif" for number in range(50)))
    waits(page, 50)
    server.script.append(Answer(["a", "b"], pause=0.2))
    page.evaluate("document.querySelector('#message').focus()")
    for _ in range(3):
        page.press("Enter")
    ended(page)
    (request,) = server.requests
    assert len(request["messages"][0]["content"]) == 50


@pytest.mark.long
def test_a_model_of_text_alone(opened: Open, server: ScriptedServer, tmp_path: Path) -> None:
    page = opened()
    (tmp_path / "a.png").write_bytes(picture())
    page.drop(300, 500, tmp_path / "a.png")
    page.wait("document.querySelector('#notice').innerText === 'This model takes in text alone.'")
    assert page.evaluate("document.querySelector('#attach').hidden") and page.evaluate("location.pathname") == "/"


@pytest.mark.long
@pytest.mark.parametrize(
    "look", [{}, {"width": 390, "height": 780, "phone": True, "scheme": "dark"}], ids=["", "phone"]
)
def test_pictures_fit_into_the_page(opened: Open, server: ScriptedServer, look: dict[str, Any]) -> None:
    server.card = SEES | {"max_body_bytes": 1 << 24}
    page = opened(**look)
    page.wait("!document.querySelector('#attach').hidden")
    for seed, size in enumerate([(1200, 30), (30, 1200)] + [(56, 56)] * 12):
        paste(page, picture(*size, seed=seed), f"{'name' * 20}.png")
        waits(page, seed + 1)
    paste(page, VIDEO, f"{'name' * 40}.mp4")
    waits(page, 15)
    wide = (
        "document.documentElement.scrollWidth <= innerWidth"
        " && document.querySelector('#composer').getBoundingClientRect().bottom <= innerHeight"
    )
    assert page.evaluate(wide)
    server.script.append(Answer(["Yes."]))
    page.evaluate("document.querySelector('#send').click()")
    ended(page)
    page.wait("[...document.querySelectorAll('.user img')].every((image) => image.complete)")
    assert page.evaluate("document.querySelector('#scroller').scrollWidth <= innerWidth") and page.evaluate(wide)
