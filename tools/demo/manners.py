"""What people say around a question, out of manners or habit; the places to be filled are those of `mannerly`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from demo.words import Language


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip().replace("_", " ") for line in text.strip().splitlines())


MANNERS: Final[Mapping[Language, Sequence[str]]] = {
    "en": _lines("""
        Please {c}
        Please {c}.
        please {c}
        Please tell me: {l}
        Please answer: {q}
        Hello! {q}
        Hello, {l}
        Hi, {l}
        Hi! {q}
        Hey, {l}
        Tell me: {q}
        Tell me, {l}
        Tell me {l}
        Can you {c}?
        Could you {c}?
        Can you {c} for me?
        Can you tell me {w}?
        Hi, can you tell me {w}?
        Hello, please {c}
        Can you tell me: {q}
        Can you tell me what {x} is?
        Could you tell me what {x} is?
        Tell me what {x} is.
        Please tell me what {x} is.
        I want to know: {l}
        I want to know what {x} is.
        I would like to know {w}.
        I have a question: {l}
        Question: {q}
        One question: {l}
        Quick: {q}
        Quick question: {l}
        Now: {q}
        Now {l}
        OK. {q}
        Ok, {l}
        So {l}
        Can you help me? {q}
        Excuse me, {l}
        Sorry, {l}
        Do you know {w}?"""),
    "zh": _lines("""
        请{c}。
        请{c}
        请问{b}?
        请问,{q}
        请问{q}
        请告诉我{q}
        请告诉我,{q}
        你好!{q}
        你好,{q}
        您好,{q}
        麻烦{c}
        麻烦你{c}。
        麻烦你,{q}
        麻烦告诉我{q}
        问一下:{q}
        问一下,{q}
        我想问{q}
        我想问一下,{q}
        我想知道{q}
        想问问{q}
        告诉我:{q}
        告诉我{q}
        帮我{c}。
        帮我{c}
        帮我一下:{q}
        请帮我{c}。
        请你{c}。
        能不能告诉我{q}
        能告诉我{w}吗?
        你能{c}吗?
        可以{c}吗?
        你知道{w}吗?
        那么{q}
        那么,{q}
        好的。{q}
        好,{q}
        再来:{q}
        老师,{q}"""),
}
THANKS: Final[Mapping[Language, Sequence[str]]] = {
    "en": _lines("""
        {b}, please
        {b} please
        {q} Please!
        {q} Thanks!
        {q} Thank you.
        {b}, thanks
        {q} Can you tell me?
        {q} I want to know."""),
    "zh": _lines("""
        {q}谢谢!
        {b},谢谢
        {q}谢谢你。
        {q}请告诉我。
        {q}请回答。"""),
}
NEW_MANNERS: Final[Mapping[Language, Sequence[str]]] = {
    "en": _lines("""
        Could you please {c}?
        Could you please tell me {w}?
        Would you {c}, please?
        Would you please {c}?
        Do you know what {x} is?
        I would like to know what {x} is, please.
        Please, can you tell me {w}?
        Hello there, {l}
        Hi there! {q}
        Good morning! {q}
        Hey, can you tell me {w}?
        Hello, can you {c}?
        Please help me: {q}
        pls {c}
        {b} pls
        {q} Thank you very much!
        {b}? thx
        May I ask, {l}
        Answer this: {q}
        Let me ask: {l}
        Next question: {l}"""),
    "zh": _lines("""
        麻烦问一下,{q}
        麻烦您告诉我{q}
        麻烦请{c}
        劳驾,{q}
        不好意思,{q}
        请教一下,{q}
        可以告诉我{w}吗?
        能不能{c}?
        您能{c}吗?
        嗨,{q}
        早上好!{q}
        你好,请问{q}
        您好,麻烦{c}
        {q}多谢!
        {q}非常感谢。
        想知道{q}
        下一个问题:{q}
        回答我:{q}
        我问你,{q}"""),
}
