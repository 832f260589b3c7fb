"""Whether a model that can reason does so: as each protocol says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.pictures import seeing_app, seeing_model
from support.serving import ask, run, said

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
BODIES: dict[str, dict[str, Any]] = {CHAT: TALK, RESPONSES: {"input": "Hi"}, MESSAGES: TALK | {"max_tokens": 9}}
WISHES: list[tuple[str, dict[str, Any], bool, int | None]] = [
    (CHAT, {}, False, None),
    (CHAT, {"reasoning_effort": "none"}, False, None),
    (CHAT, {"reasoning_effort": "low"}, True, 512),
    (CHAT, {"reasoning_effort": "high"}, True, None),
    (CHAT, {"thinking_budget": 0}, False, None),
    (CHAT, {"thinking_budget": 7}, True, 7),
    (CHAT, {"reasoning_effort": "high", "thinking_budget": 0}, False, None),
    (RESPONSES, {}, False, None),
    (RESPONSES, {"reasoning": {"effort": "none"}}, False, None),
    (RESPONSES, {"reasoning": {"effort": "minimal"}}, True, 128),
    (RESPONSES, {"reasoning": {"max_tokens": 5}}, True, 5),
    (MESSAGES, {}, False, None),
    (MESSAGES, {"thinking": {"type": "disabled"}}, False, None),
    (MESSAGES, {"thinking": {"type": "adaptive"}}, False, None),
    (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 6}}, True, 6),
    (MESSAGES, {"output_config": {"effort": "medium"}}, True, 2048),
]


def test_a_wish_reaches_the_prompt(tmp_path: Path) -> None:
    with seeing_model(tmp_path) as model:

        async def body() -> None:
            app, served = seeing_app(model, *[said("a")] * len(WISHES))
            for path, wish, thinking, budget in WISHES:
                reply = await ask(app, "POST", path, BODIES[path] | wish)
                assert reply.status == 200, (path, wish, reply.body)
                asked = served.asked[-1]
                assert (asked.prompt.thinking, asked.options.get("thinking_budget")) == (thinking, budget), wish

        run(body)
