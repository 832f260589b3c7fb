"""Clients of OpenAI's responses and Anthropic's messages, on a model whose answers mean something."""

from __future__ import annotations

import anthropic
import openai

from support.serving import Served

QUESTION = "How many grams are in 5 kilograms?"


def test_both_give_the_same_answer_whole_and_in_pieces(server: Served) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{server.url}/v1") as client:
        response = client.responses.create(model="demo", input=QUESTION, temperature=0)
        with client.responses.stream(model="demo", input=QUESTION, temperature=0) as stream:
            streamed = stream.get_final_response()
    with (
        anthropic.Anthropic(api_key="k", base_url=server.url) as client_of_anthropic,
        client_of_anthropic.messages.stream(
            model="demo",
            max_tokens=100,
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"temperature": 0},
        ) as message,
    ):
        text = message.get_final_text()
    assert "5000" in response.output_text.replace(",", "")
    assert response.output_text == streamed.output_text == text
