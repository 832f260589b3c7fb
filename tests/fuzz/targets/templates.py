"""Strangers' chat templates, made by a grammar, and some that reach for code; through the child that renders."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from ernie_rt.text import sandbox
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.foreign import MAX_BYTES
from ernie_rt.text.spans import encode_spans
from fuzz import talks
from fuzz.mutations import TEXTS, changed_text, dumped, value
from fuzz.target import Attempt, Target
from support.templates import BOMBS, CHATML, CODE, CUTTING, PARTS, PLAIN, THINKING, TURNS, VISION_LANGUAGE

KNOWN = (
    PLAIN,
    THINKING,
    CHATML,
    CUTTING,
    VISION_LANGUAGE,
    "{%- set before, image, video = 1, 2, 3 -%}" + PARTS + TURNS,
    PLAIN + "<|image@placeholder|>",
    PLAIN + "<|video@placeholder|>",
)
NAMES = (
    "messages", "tools", "bos_token", "add_generation_prompt", "m", "m.role", "m.content", "m['content']", "loop", "ns",
    "loop.index0", "loop.last", "messages[0]", "messages[-1].content", "m.tool_calls", "m.reasoning_content", "x",
    "none", "documents", "enable_thinking", "options", "namespace", "range(3)", "dict(a=1)", "self", "m.name",
    "strftime_now('%Y')",
)  # fmt: skip
FILTERS = (
    "trim", "tojson", "upper", "length", "list", "string", "first", "last", "join('')", "default('x')", "items", "e",
    "safe", "replace('a', 'b')", "int", "map(attribute='role')", "selectattr('role', 'equalto', 'user')", "batch(2)",
    "tojson(indent=2)", "indent(4)", "attr('__class__')", "sort", "unique", "reverse", "sum", "striptags", "format(1)",
)  # fmt: skip
TESTS = (
    "defined",
    "string",
    "none",
    "mapping",
    "iterable",
    "sequence",
    "number",
    "true",
    "equalto('x')",
    "in ['user']",
)
METHODS = (
    "strip()", "split('</think>')[-1]", "startswith('<')", "upper()", "get('x')", "items()", "append(1)", "format(1)",
    "__class__", "__init__.__globals__", "keys()|list", "encode()", "replace('<', '')", "endswith('>')",
)  # fmt: skip
OPERATORS = ("~", "+", "==", "!=", "and", "or", "in", "%", "*", "<")
WORDS = (
    "User: ", "\\n", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<|image@placeholder|>", "<s>", "{", "'", "é",
    "<|begin_of_sentence|>", "[/INST]", "<|end|>", *TEXTS[:14],
)  # fmt: skip


def expression(rng: Random, depth: int = 0) -> str:
    kind = rng.randrange(11) if depth < 3 else rng.randrange(4)
    if kind < 3:
        return rng.choice(NAMES)
    if kind == 3:
        return rng.choice((f"'{literal(rng)}'", "1", "true", "[]", "{}", "-1", "1.5", "[1, 2]", "{'a': 1}", "10 ** 3"))
    inner = expression(rng, depth + 1)
    match kind:
        case 4 | 5:
            return f"{inner} | {rng.choice(FILTERS)}"
        case 6:
            return f"({inner}).{rng.choice(METHODS)}"
        case 7:
            return f"{inner} {rng.choice(OPERATORS)} {expression(rng, depth + 1)}"
        case 8:
            return f"{inner} is {rng.choice(('', 'not '))}{rng.choice(TESTS)}"
        case 9:
            return f"({inner} if {expression(rng, depth + 1)} else {expression(rng, depth + 1)})"
        case _:
            return f"({inner})[{rng.choice(('0', '-1', ':1', '::-1', repr('role'), '99', repr('__class__')))}]"


def literal(rng: Random) -> str:
    return rng.choice(WORDS).replace("'", "").replace("\0", "")


def statement(rng: Random, depth: int = 0) -> str:
    dash = rng.choice(("", "", "-"))
    kind = rng.randrange(12) if depth < 3 else rng.randrange(4)
    inner = "" if kind < 4 else "".join(statement(rng, depth + 1) for _ in range(rng.randrange(1, 3)))
    match kind:
        case 0 | 1:
            return f"{{{{{dash} {expression(rng)} {dash}}}}}"
        case 2:
            return f"{{{{- '{literal(rng)}' ~ m.content ~ '{literal(rng)}' -}}}}"
        case 3:
            return rng.choice(WORDS)
        case 4 | 5 | 6:
            over = rng.choice(("messages", "messages", "messages[1:]", expression(rng, 2)))
            return f"{{%{dash} for m in {over} {dash}%}}{inner}{rng.choice(('', '{% else %}x'))}{{% endfor {dash}%}}"
        case 7 | 8:
            return f"{{%{dash} if {expression(rng, 1)} %}}{inner}{{% else %}}{literal(rng)}{{% endif {dash}%}}"
        case 9:
            name = rng.choice(("x", "ns.x", "messages", "m", "loop"))
            return f"{{% set ns = namespace(x=1) %}}{{% set {name} = {expression(rng, 1)} %}}{inner}"
        case 10:
            return f"{{% macro w(m) %}}{inner}{{% endmacro %}}{{{{ w({expression(rng, 2)}) }}}}"
        case _:
            return rng.choice((
                f"{{% generation %}}{inner}{{% endgeneration %}}", f"{{% filter upper %}}{inner}{{% endfilter %}}",
                "{{ raise_exception('no') }}", "{% break %}", "{# x #}", f"{{% raw %}}{inner}{{% endraw %}}",
                f"{{% call w(1) %}}{inner}{{% endcall %}}", "{% include 'x' %}",
                f"{{% block b %}}{inner}{{% endblock %}}",
            ))  # fmt: skip


def drawn(rng: Random, canary: Path) -> str:
    match rng.randrange(12):
        case 0 | 1:
            return rng.choice(KNOWN)
        case 2 | 3:
            return changed_text(rng, rng.choice(KNOWN))
        case 4:
            return rng.choice(CODE).replace("CANARY", str(canary)) + (statement(rng) if rng.random() < 0.5 else "")
        case 5 if rng.random() < 0.15:
            return "x" * (sandbox.TEMPLATE_BYTES + 1)
        case 6 if rng.random() < 0.045:  # seldom: it takes a second and another process
            return rng.choice(BOMBS)
    return "".join(statement(rng) for _ in range(rng.randrange(1, 4)))


def load(rng: Random, source: str, folder: Path) -> ChatTemplate | None:
    """The template as one of the files that may have it, now and then not quite."""
    name = rng.choice(("chat_template.jinja", "chat_template.json", "tokenizer_config.json"))
    for other in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        (folder / other).unlink(missing_ok=True)
    if name.endswith("jinja"):
        data = source.encode(errors="surrogatepass")
        (folder / name).write_bytes(b"\xff" + data if rng.random() < 0.3 else data)
    else:
        several = [{"name": rng.choice(("default", "tool_use", 3)), "template": source}, value(rng)]
        held = rng.choice((source, source, several, {"default": source}, {"x": source}, value(rng)))
        (folder / name).write_text(dumped({"chat_template": held, "cls_token": rng.choice(("<s>", value(rng)))}))
    return ChatTemplate.load(folder)


def start(scratch: Path) -> Attempt:
    files = scratch / "files"
    files.mkdir()
    tokenizer = talks.toy_tokenizer(scratch)
    special = {*tokenizer.reserved.values()}
    renderer, canary = sandbox.Renderer(), scratch / "canary"

    def attempt(rng: Random) -> None:
        source = drawn(rng, canary).encode(errors="replace").decode()  # no file that is read has anything else
        if rng.random() < 0.1:
            template = load(rng, source, files)
            if template is None:
                return
        else:  # as one that was looked into and is a stranger's: to do so renders it some thirty times
            template = ChatTemplate(source, {"bos_token": "<s>"}, "x", "foreign")
        template._renderer = renderer
        asked: Any = talks.plain_messages(rng)
        if rng.random() < 0.2:
            asked = talks.messages(rng)
        elif template._known == "foreign" and rng.random() < 0.009:  # one of ERNIE's would make tokens of it all
            asked[0]["content"] = "x" * (MAX_BYTES + 1)
        tools = talks.tools(rng) if rng.random() < 0.3 else None
        if rng.random() < 0.03:
            asked = [{"role": "user", "content": ["a", {"type": "image", "image": b"x"}]}]
            template.prompt(asked, tokenizer, tools)
        try:
            spans = template.spans(asked, tokenizer, tools, rng.random() < 0.7)
            for span in spans:
                assert span.scaffold or not special & {*tokenizer.encode(span.text)}, "a text has forged a token"
            encode_spans(spans, tokenizer)
            if rng.random() < 0.4:
                template.prompt(asked, tokenizer, tools, thinking=rng.choice((None, None, True, 1)))
        finally:
            assert not canary.exists(), "a template has written a file"

    return attempt


TARGET = Target(
    "templates",
    ("ernie_rt.text.chat", "ernie_rt.text.foreign", "ernie_rt.text.sandbox", "ernie_rt.text.showing"),
    start,
    share=1_000,
    excused={
        "process gave no answer": "whatever a template does ends as a limit or an error; this is for a broken process",
        "renders chat templates is not there": "the file is there; tests/test_worker.py takes it away",
    },
)
