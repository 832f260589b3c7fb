"""Chat templates that attack: every one is stopped, quickly and with a named error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ernie_rt.errors import TemplateError, TemplateLimitError
from ernie_rt.text import sandbox

CONTEXT = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>"}
CODE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__ }}",
    "{{ messages.__class__.__base__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ joiner.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ namespace.__init__.__globals__['os'].system('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ lipsum.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ range.__class__.__base__.__subclasses__() }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].system('touch CANARY') }}",
    "{{ strftime_now.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('for' ~ 'mat')('a') }}{{ '{0.__class__.__mro__}'|attr('format')('') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ messages.append({'role': 'user'}) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{% set x = messages[0].pop('content') %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% extends 'base' %}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__func__.__globals__ }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ (messages|map('attr', '__init__')|first).__globals__ }}",
    "{{ open('CANARY', 'w') }}",
    "{{ __import__('os').system('touch CANARY') }}",
    "{{ ''.join.__self__.__class__ }}",
]
BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}",
    "{{ 'a' * 10000000000 }}",
    "{{ ('a' * 300000000) | length }}",
    "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{{ 9 ** (messages | length * 99999999) }}",
    "{{ '%0999999999d' | format(1) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ range(10 ** 9) | list }}",
    "{{ [[0] * 9999999] * 9999999 | length }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ 'y' * 5000000 }}",
]


@pytest.mark.parametrize("template", CODE)
def test_code_is_not_run(template: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    began = time.monotonic()
    with pytest.raises(TemplateError) as caught:
        sandbox.render(template.replace("CANARY", str(canary)), [CONTEXT], "chat_template")
    assert time.monotonic() - began < 2
    assert not isinstance(caught.value, TemplateLimitError)
    assert not canary.exists()


@pytest.mark.parametrize("template", BOMBS)
def test_bombs_are_stopped(template: str) -> None:
    began = time.monotonic()
    with pytest.raises(TemplateLimitError, match="was stopped"):
        sandbox.render(template, [CONTEXT], "chat_template")
    assert time.monotonic() - began < 2


def test_a_template_that_is_too_large() -> None:
    with pytest.raises(TemplateLimitError, match="too large"):
        sandbox.render("x" * (sandbox.TEMPLATE_BYTES + 1), [CONTEXT], "chat_template")


def test_a_syntax_error_is_named() -> None:
    with pytest.raises(TemplateError, match="TemplateSyntaxError"):
        sandbox.render("{% if %}", [CONTEXT], "chat_template")


def test_what_a_template_raises_is_told() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        sandbox.render("{{ raise_exception('roles must alternate') }}", [CONTEXT], "chat_template")


def test_a_child_that_waits_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 0.01)
    with pytest.raises(TemplateLimitError):
        sandbox.render("x", [CONTEXT], "chat_template")


def test_output_within_the_limits_arrives_whole() -> None:
    (text, other) = sandbox.render("{{ bos_token * n }}\0\u2028é", [{**CONTEXT, "n": 1_000_000}, {"n": 1}], "x")
    assert text == "<s>" * 1_000_000 + "\0\u2028é"
    assert other is None or other == "\0\u2028é"


def test_what_chat_templates_use() -> None:
    template = (
        "{%- for m in messages -%}{%- if loop.first -%}{%- continue -%}{%- endif -%}{%- endfor -%}"
        "{% generation %}{{ {'a': '<é>'} | tojson }}{% endgeneration %}{{ strftime_now('%Y') | length }}"
    )
    assert sandbox.render(template, [CONTEXT], "x") == ['{"a": "<é>"}4']


def test_the_child_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert sandbox.render("{{ messages[0].content }}", [CONTEXT], "x") == ["hello"]
