"""`ernie-rt serve`: its options, and the process that it is."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
from typer.testing import CliRunner

import ernie_rt
from ernie_rt.errors import ErnieRtError, OptionError
from ernie_rt.vision import decoding
from ernie_rt_serve import running
from ernie_rt_serve.cli.serve import log_to_stderr, serve
from ernie_rt_serve.settings import Settings
from support.server_process import server_process
from support.vision_checkpoint import write_vision_checkpoint


def invoke(*arguments: str) -> None:
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, dict[str, Any]]]:
    """What the command would have run."""
    seen: list[tuple[Settings, dict[str, Any]]] = []

    async def note(listener: Any, settings: Settings, load: object, ready: object, **options: Any) -> None:
        listener.close()
        seen.append((settings, options))

    monkeypatch.setattr(running, "run", note)
    monkeypatch.delenv("ERNIE_RT_API_KEY", raising=False)
    return seen


NAMES = {b"mine": "mine", b"mod\xffel": r"mod\udcffel", b"a\x1b]0;b\x07\n": r"a\x1b]0;b\x07\n"}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
@pytest.mark.parametrize("folder", NAMES)
def test_a_folder_is_served_by_its_name_as_answers_can_hold_it(
    ran: list[tuple[Settings, dict[str, Any]]], tmp_path: Path, folder: bytes
) -> None:
    model = tmp_path / os.fsdecode(folder)
    shutil.copytree(Path(ernie_rt.__file__).parent / "demo", model)
    invoke(str(model), "--port", "0")
    assert ran[0][0].model == NAMES[folder]


@pytest.mark.parametrize("name", ["\udcff", "a\x1b[2J", "a\nb", "a\u202eb"])
def test_names_that_no_answer_can_hold_are_refused(ran: list[tuple[Settings, dict[str, Any]]], name: str) -> None:
    with pytest.raises(OptionError, match="a name that cannot be served"):
        invoke("demo", "--port", "0", "--served-model-name", name)
    assert not ran


def test_what_is_said_on_the_command_line_is_set(ran: list[tuple[Settings, dict[str, Any]]], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-a\nsk-b\n")
    invoke(
        "demo", "--port", "0", "--host", "0.0.0.0", "--api-key-file", str(keys), "--served-model-name", "mine",
        "--cors-origin", "HTTP://a", "--cors-origin", "https://b:8080",
        "--max-queue", "3", "--queue-seconds", "2", "--drain-seconds", "5",
    )  # fmt: skip
    ((settings, options),) = ran
    assert (settings.model, settings.cors_origins, settings.drain_seconds) == (
        "mine",
        ("http://a", "https://b:8080"),
        5,
    )
    assert len(settings.keys.digests) == 2 and options == {"max_queue": 3, "queue_seconds": 2}


def test_a_model_that_sees_needs_what_reads_pictures(
    ran: list[tuple[Settings, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(write_vision_checkpoint(tmp_path))
    invoke(folder, "--port", "0", "--max-body", "64MiB")
    assert ran[0][0].longest_body(True) == ran[0][0].longest_body(False) == 64 << 20
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)
    with pytest.raises(ErnieRtError, match="Pillow") as caught:
        invoke(folder, "--port", "0")
    assert "ernie-rt[vision]" in str(caught.value)
    invoke(folder, "--port", "0", "--text-only")
    assert len(ran) == 2


def test_nobody_else_gets_in_unless_that_is_said(
    ran: list[tuple[Settings, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="without a key") as caught:
        invoke("demo", "--port", "0", "--host", "0.0.0.0")
    assert caught.value.exit_code == 2 and not ran
    invoke("demo", "--port", "0", "--host", "0.0.0.0", "--insecure")
    invoke("demo", "--port", "0")
    assert [settings.own_hosts for settings, _ in ran] == [False, True], "pages of the web are others as well"
    monkeypatch.setenv("ERNIE_RT_API_KEY", "sk-a")
    invoke("demo", "--port", "0", "--host", "0.0.0.0")
    assert [bool(settings.keys) for settings, _ in ran] == [False, False, True]
    monkeypatch.setenv("ERNIE_RT_API_KEY", "")
    with pytest.raises(OptionError, match="ERNIE_RT_API_KEY: an API key"):
        invoke("demo", "--port", "0")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no such model",),
        ("demo", "--max-context", "x"),
        ("demo", "--api-key-file", "/nowhere"),
        ("demo", "--cors-origin", "chat.example.org"),
        ("demo", "--cors-origin", "https://chat.example.org/"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    ran: list[tuple[Settings, dict[str, Any]]], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(ErnieRtError):
        invoke(*arguments)
    assert not ran


def test_the_command_is_light() -> None:
    program = "import sys, ernie_rt_serve.cli.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"starlette", "uvicorn", "msgspec", "numpy", "prometheus_client"} & set(loaded)


def test_the_log_speaks_of_requests_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """uvicorn names no request where it warns: of bytes that are no HTTP, which anybody can send."""
    names = ("ernie_rt_serve", "uvicorn")
    before = [(log, log.handlers, log.propagate, log.level) for log in map(logging.getLogger, names)]
    try:
        for quiet in (False, True):
            log_to_stderr(quiet)
            logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
            logging.getLogger("uvicorn.error").error("a fault")
            logging.getLogger("ernie_rt_serve.requests").info("a request")
            assert capsys.readouterr().err == ("a fault\n" if quiet else "a fault\na request\n")
    finally:
        for log, log.handlers, log.propagate, level in before:
            log.setLevel(level)


@pytest.mark.long
def test_a_process_from_start_to_end() -> None:
    with server_process() as server:
        curl, pid = server.said[-1], server.process.pid
        body = re.search(r"-d '(.*)'", curl)
        assert body is not None
        told = httpx2.post(f"{server.url}/v1/chat/completions", json=json.loads(body[1]), timeout=30)
        assert told.status_code == 200
        sockets = [line for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines() if " 0A " in line]
        inodes = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.exists()}
        assert sum(f"socket:[{line.split()[9]}]" in inodes for line in sockets) == 1, "one port, and no other"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    said = server.said
    assert any("POST /v1/chat/completions 200" in line for line in said) and "Hello" not in "".join(said[3:])


@pytest.mark.long
def test_a_second_signal_ends_it_at_once() -> None:
    with server_process("--quiet", "--max-context", "2048") as server:
        wish = {"prompt": "x", "max_tokens": 2000, "n": 16, "ignore_eos": True, "stream": True}
        with httpx2.stream("POST", f"{server.url}/v1/completions", json=wish, timeout=30) as reply:
            next(reply.iter_lines())
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            assert server.process.poll() is None, "it waits for the answer"
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(2) == 130 and server.alone
    assert not any("/v1/completions" in line for line in server.said if not line.startswith("curl"))
