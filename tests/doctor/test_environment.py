"""The tokenizer, and what variables say of the network."""

from __future__ import annotations

import pytest

from ernie_rt.doctor import examination, text
from ernie_rt.doctor.network import network
from ernie_rt.errors import PluginError
from ernie_rt.text.tokenizer import Tokenizer


def test_variables_that_say_how_models_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", *proxies)
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert not list(network())
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HTTPS_PROXY", "https://me:secret@proxy.example")
    endpoint, proxy = network()
    assert (endpoint.severity, endpoint.command) == ("remark", "unset HF_ENDPOINT") and "mirror" in endpoint.seen
    assert "secret" not in f"{proxy}" and proxy.command == "unset HTTPS_PROXY"
    monkeypatch.setenv("HF_HUB_OFFLINE", "ON")
    assert next(each.seen for each in network()) == "HF_HUB_OFFLINE=ON"


def test_texts_come_back() -> None:
    assert text.run() == []


def test_texts_that_do_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: encode(self, text)[:-1])
    wrong = text.run()
    assert len(wrong) > len(text.TEXTS) and "'5公里等于多少米？' comes back as '5公里等于多少米'" in wrong
    monkeypatch.setattr(examination.child, "call", lambda *_, **__: (wrong[:1], ""))
    (finding,) = examination._tokenizer(1.0)
    assert finding.severity == "broken" and finding.command.startswith("pip install --force-reinstall --no-deps sente")


def test_a_tokenizer_that_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object, **__: object) -> None:
        raise PluginError("reading and writing texts ends the process with signal SIGSEGV")

    monkeypatch.setattr(examination.child, "call", call)
    (finding,) = examination._tokenizer(1.0)
    assert finding.severity == "broken" and finding.seen.endswith("SIGSEGV")
