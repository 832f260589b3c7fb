"""Chat templates that attack: every one is stopped, quickly and with a named error, and harms none that follows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ernie_rt.errors import TemplateError, TemplateLimitError
from ernie_rt.text import sandbox
from ernie_rt.text.sandbox import Renderer
from ernie_rt.worker import STARTING
from support.templates import BOMBS, CODE, CONTEXT, GREETING, process


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """One for all tests of this file, so that each is about a process that has seen the others' templates."""
    return Renderer()


def worked() -> float:
    """The processor time, in seconds, of this one's processes that have ended: other work here adds nothing to it."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("template", CODE)
def test_code_is_not_run(renderer: Renderer, template: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]
    before = process(renderer)
    with pytest.raises(TemplateError) as caught:
        renderer.render(template.replace("CANARY", str(canary)), [CONTEXT], "chat_template")
    assert not isinstance(caught.value, TemplateLimitError)
    assert not canary.exists()
    assert process(renderer) == before


@pytest.mark.parametrize("template", BOMBS)
def test_bombs_are_stopped(renderer: Renderer, template: str) -> None:
    renderer.render(GREETING, [CONTEXT], "x")
    began = worked()
    with pytest.raises(TemplateLimitError, match="was stopped"):
        renderer.render(template, [CONTEXT], "chat_template")
    assert worked() - began < 2
    assert process(renderer) == 0
    assert renderer.render(GREETING, [CONTEXT], "x") == ["hello"]


def test_a_template_that_is_too_large(renderer: Renderer) -> None:
    with pytest.raises(TemplateLimitError, match="too large"):
        renderer.render("x" * (sandbox.TEMPLATE_BYTES + 1), [CONTEXT], "chat_template")


def test_a_syntax_error_is_named(renderer: Renderer) -> None:
    with pytest.raises(TemplateError, match="TemplateSyntaxError"):
        renderer.render("{% if %}", [CONTEXT], "chat_template")


def test_what_a_template_raises_is_told(renderer: Renderer) -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        renderer.render("{{ raise_exception('roles must alternate') }}", [CONTEXT], "chat_template")


def test_output_within_the_limits_arrives_whole(renderer: Renderer) -> None:
    """That of a context that fails, as `bos_token` is missing in the second one, is None."""
    said = "<s>" * 300_000
    (text, other) = renderer.render("{{ bos_token * 3 }}\0\u2028é", [{**CONTEXT, "bos_token": said}, {}], "x")
    assert text == said * 3 + "\0\u2028é"
    assert other is None


def test_what_chat_templates_use(renderer: Renderer) -> None:
    template = (
        "{%- for m in messages -%}{%- if loop.first -%}{%- continue -%}{%- endif -%}{%- endfor -%}"
        "{% generation %}{{ {'a': '<é>'} | tojson }}{% endgeneration %}{{ strftime_now('%Y') | length }}"
    )
    assert renderer.render(template, [CONTEXT], "x") == ['{"a": "<é>"}4']


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_the_child_sees_no_environment_and_no_files(renderer: Renderer) -> None:
    renderer.render(GREETING, [CONTEXT], "x")
    child = Path(f"/proc/{process(renderer)}")
    told = (child / "environ").read_bytes().split(b"\0")[:-1]
    assert {entry.partition(b"=")[0].decode() for entry in told} == {*STARTING} & os.environ.keys()
    assert {int(file.name) for file in (child / "fd").iterdir()} == {0, 1, 2}
    limits = {line[:25].strip(): line.split()[-3:-1] for line in (child / "limits").read_text().splitlines()}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max file size"] == ["0", "0"]


def test_the_child_is_told_what_it_takes_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STARTING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SYSTEMROOT", "C:\\Windows")
    monkeypatch.setenv("SECRET", "x")
    ours = Renderer()
    ours.render(GREETING, [CONTEXT], "x")
    assert Path(f"/proc/{process(ours)}/environ").read_bytes() == b"SYSTEMROOT=C:\\Windows\0"


@pytest.mark.parametrize("template", ["{{ 'a b' | wordwrap(1) }}", "{{ [1] | pprint }}", "{{ 'x.org' | urlize }}"])
def test_what_filters_load_is_there(renderer: Renderer, template: str) -> None:
    """The process can open no file by then."""
    assert renderer.render(template, [CONTEXT], "x")


@pytest.mark.parametrize("given", ["", "x" * 1000, "x" * (1 << 20)])
def test_output_is_counted_in_bytes(given: str, renderer: Renderer) -> None:
    """At most four times what a template is given and 256 KiB, and never more than 4 MiB."""
    context = {"given": given, "n": f"{0:07}"}
    count = min(4 << 20, (256 << 10) + 4 * len(json.dumps([context]))) // 2
    context["n"] = f"{count:07}"
    assert renderer.render("{{ 'é' * (n | int) }}", [context], "x") == ["é" * count]
    with pytest.raises(TemplateLimitError, match="bytes of output"):
        renderer.render("{{ 'é' * (n | int + 1) }}", [context], "x")
    with pytest.raises(TemplateLimitError, match="bytes of output"):
        renderer.render("{% for i in range(2) %}{{ 'é' * (n | int) }}{% endfor %}", [context], "x")


def test_output_of_all_contexts_counts(renderer: Renderer) -> None:
    texts = [{"n": n} for n in (9, 65_600)]
    assert renderer.render("{{ 'é' * n }}", texts, "x") == ["é" * 9, "é" * 65_600]
    with pytest.raises(TemplateLimitError, match="bytes of output"):
        renderer.render("{{ 'é' * n }}", [{"n": 65_600}, {"n": 65_600}], "x")


def test_time_is_each_renderings_own(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 0.25)
    pids = set()
    loop = "{% for a in range(60) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    for _ in range(40):
        renderer.render(loop, [CONTEXT], "x")
        pids.add(process(renderer))
    assert len(pids) == 1
    began = worked()
    renderer.close()
    assert worked() - began > 0.25


STATEFUL = [
    "{% set x = namespace(n=0) %}{% set x.n = x.n + 1 %}{{ x.n }}",
    "{% set x = 1 %}{% set messages = [1] %}{% set range = 2 %}{% set namespace = 3 %}{% set dict = 4 %}",
    "{% macro range(x=[]) %}{% endmacro %}{% macro trim() %}{% endmacro %}{{ range() }}",
    "{% set raise_exception = 1 %}{% set strftime_now = 2 %}{% block x %}block{% endblock %}",
    "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "{% for m in messages %}{% set loop = 1 %}{% set x = 2 %}{% endfor %}{% with x = 5 %}{{ x }}{% endwith %}",
    "{% call(x) dict() %}{% endcall %}",
    "{% set dict.x = 1 %}",
    "{% set namespace.x = 1 %}",
    "{% set messages[0].content = 1 %}",
    "{% set ns = namespace(x=messages) %}{% set ns.x = 0 %}{% set ns.messages = 0 %}",
    "{{ messages.insert(0, 1) }}",
    "{{ dict.update(messages[0], content=1) }}",
    "{% filter upper %}{{ messages }}{% endfilter %}{{ self.x }}",
]
LOOK = (
    "{{ x is defined }} {{ messages[0].content }} {{ messages | length }} {{ range(2) | list }} {{ dict(a=1) }} "
    "{{ '<' }} {{ ' a ' | trim }} {{ strftime_now('%%') }} {% set ns = namespace(n=1) %}{{ ns.n }} "
    "{{ ns.x is defined }}"
)


def test_nothing_is_left_to_the_next(renderer: Renderer) -> None:
    seen = renderer.render(LOOK, [CONTEXT], "x")
    assert seen == ["False hello 1 [0, 1] {'a': 1} < a % 1 False"]
    first = process(renderer)
    for template in STATEFUL:
        texts = []
        for _ in range(2):
            try:
                texts.append(renderer.render(template, [CONTEXT, CONTEXT], "x"))
            except TemplateError as error:
                texts.append([str(error)])
        assert texts[0] == texts[1]
        assert texts[0][0] == texts[0][-1]
        assert renderer.render(LOOK, [CONTEXT], "x") == seen
    assert process(renderer) == first


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"[" * 99_999, b"1", b"[]", b"{}", b'{"texts": [], "errors": []}', b'{"texts": [null], "errors": []}',
        b'{"texts": [1], "errors": []}', b'{"texts": ["a", 1], "errors": []}', b'{"texts": "a", "errors": []}',
        b'{"texts": ["\\ud800"], "errors": []}', b'{"texts": [], "errors": [1]}', b'{"texts": NaN}',
    ],
)  # fmt: skip
def test_a_process_that_a_template_has_taken_over_is_not_believed(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = SimpleNamespace(ask=lambda request, seconds, most: (True, answer), end=lambda: (False, 0))
    monkeypatch.setattr(sandbox, "Worker", lambda *_: taken)
    with pytest.raises(TemplateError, match="the chat template's process gave no answer"):
        Renderer().render("{{ 1 }}", [CONTEXT], "x")
