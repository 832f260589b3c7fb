"""The demo asked as people write: blanks or none, widths, capitals, marks, manners, units and numbers in short or in
words; and a conversation of twenty turns. Each line below is a way of asking for the answer above it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

import ernie_rt

pytestmark = pytest.mark.long

LEAST_RIGHT: Final = 0.9
"""The share of the questions below that must be answered to the letter."""
ASKED: Final = """
= 27 + 56 = 77 + 6 = 83
What is 27 plus 56?
what is 27 plus 56
What's 27 plus 56?
whats 27 + 56?
WHAT IS 27 PLUS 56?
27+56
27 + 56
27+56=
27+56=?
27 + 56 = ?
２７＋５６＝？
27＋56=？
What is 27+56？
twenty-seven plus fifty-six
What is twenty-seven plus fifty-six?
Please add 27 and 56.
Can you tell me what 27 plus 56 is?
Could you add 27 and 56, please?
Hi, what is 27 + 56? Thanks!
27加56等于多少？
27加56等于多少
27 加 56 等于多少？
请问27加56等于多少？
请问，27+56等于多少？
麻烦算一算27加56，谢谢
二十七加五十六等于多少？
２７加５６是多少？
27加56=？

= 83 - 27 = 63 - 7 = 56
What is 83 minus 27?
what's 83-27
83-27=?
83 − 27
83－27＝？
Please subtract 27 from 83
EIGHTY-THREE MINUS TWENTY-SEVEN
83减27等于多少？
请问八十三减二十七是多少？
83 减去 27 等于多少

= 5 kilograms = 5000 grams
How many grams are in 5 kilograms?
how many grams in 5 kg
How many g are in 5kg?
5kg to g
5 kg in grams?
5kg = ? g
HOW MANY GRAMS ARE IN 5 KILOGRAMS
Please convert five kilograms to grams.
Convert ５ kilograms to grams
Can you tell me how many grams are in 5 kilos?

= 12 meters = 1200 centimeters
How many centimeters are in 12 meters?
how many cm are in 12 m?
12m=?cm
12 metres in centimetres
Convert 12 m into cm, please.
twelve meters is how many centimeters?

= 5公里 = 5000米
5公里等于多少米？
5公里等于多少米
５公里等于多少米？
5km等于多少m？
5 公里 等于 多少 米？
五公里是多少米？
请问5千米等于多少米？
麻烦把5公里换算成米，谢谢！

= 3公斤 = 3000克
3公斤等于多少克？
3kg是多少g？
３公斤有多少克
三公斤等于多少克?
请问3千克是多少克

= 7, 34, 81
Sort 34, 7, 81
sort 34,7,81
Sort: 34, 7 and 81
Sort from smallest to largest: 34, 7, 81.
SORT 34 7 81
Please sort these numbers: 34, 7, 81
Can you sort 34, 7, 81?
sort thirty-four, seven, eighty-one

= 7、34、81
从小到大排序：34、7、81
从小到大排序：34，7，81
把34,7,81从小到大排序
请把34、7、81从小到大排序。

= 71 is larger than 34.
Which is larger, 34 or 71?
which is larger 34 or 71
Which is bigger,34 or 71?
which is LARGER, ３４ or ７１?
Which number is larger: thirty-four or seventy-one?
Hey, which is larger, 34 or 71?

= 71比34大。
34和71哪个大？
３４和７１哪个大
请问34和71哪个更大？
三十四和七十一哪个大？

= l e m o n → nomel
Reverse the word lemon.
reverse the word "lemon"
Reverse the word 'lemon'.
Reverse “lemon”
Spell Lemon backwards
REVERSE THE WORD LEMON
please spell lemon backwards
把lemon倒过来写
请把「lemon」倒过来写。
把“lemon”倒过来

= 猫
How do you say cat in Chinese?
how do you say "cat" in chinese?
What's cat in Chinese?
What’s “cat” in Chinese？
cat in Chinese
translate cat into Chinese
Translate 'cat' to Chinese, please
CAT IN CHINESE?
cat用中文怎么说？
"cat"的中文是什么？
请问cat用中文怎么说？

= apple
苹果用英文怎么说？
苹果用英文怎么说
「苹果」用英文怎么说？
请问“苹果”的英文是什么？
苹果英语怎么说？
What is 苹果 in English?
what's 苹果 in english

= forty-two
Write 42 in words.
write 42 in words
42 in words
Write ４２ in words
Please write 42 in words
WRITE 42 IN WORDS.
How do you write "42" in words?

= 四十七
用汉字写出47。
用汉字写出４７
请用汉字写出47
47用汉字怎么写？
请问47怎么读？

= 3, 4, 5, 6, 7, 8
Count from 3 to 8.
count from 3 to 8
COUNT FROM 3 TO 8
Count from three to eight.
Can you count from 3 to 8?
please count from ３ to ８

= April 1
What day comes after March 31?
what day comes after march 31
What is the day after March 31st?
What's the day after the 31st of March?
which day comes after 31 March?
Can you tell me what day comes after March 31?

= 4月1日
3月31日的后一天是几月几日？
3月31号的第二天是几月几日
三月三十一日的后一天是几月几日？
请问3月31日的后一天是哪天？

= 2021-03-05
Write March 5, 2021 as numbers.
write march 5th, 2021 as numbers
Write 5 March 2021 in digits

= There are 3 words.
How many words are there: cat, dog, cow
how many words are there: cat dog cow
Count the words: cat,dog,cow
Please count these words: cat, dog and cow

= The key is in the garden.
Tom put the key in the garden. Anna went to the school. Where is the key?
Tom put the key in the garden. Anna went to the school. Where's the key
tom put the key in the garden. anna went to the school. where is the key?
Hello! Tom put the key in the garden. Anna went to the school. Where is the key?
"Tom put the key in the garden. Anna went to the school." Where is the key?

= 钥匙在花园里。
小明把钥匙放在花园里。小红去了学校。钥匙在哪里？
小明把钥匙放在花园里，小红去了学校，钥匙在哪里？
请问，小明把钥匙放在花园里。小红去了学校。钥匙在哪里

= {"name": "Tom", "age": 12, "city": "Paris"}
Answer in JSON: Tom is 12 years old and lives in Paris.
answer in json: tom is 12 years old and lives in paris
Please answer in JSON: "Tom is 12 years old and lives in Paris."

= I do not know.
Who took my umbrella?
who took my umbrella
WHO TOOK MY UMBRELLA?
Can you tell me who took my umbrella?
What's the phone number of Anna?
What is 7 times 8?
7*8
7 × 8 = ?
What is 100 divided by 4?
427 + 156
What is the capital of France?
what's the capital of france
Please tell me the capital of France
Who is the president of Brazil?
What time is it?
Tell me a joke
How do you say "helicopter" in Chinese?
Why is the sky blue？

= 我不知道。
我的雨伞放在哪里了？
我的雨伞放在哪里了
请问我的雨伞放在哪里了？
谁拿了我的雨伞？
小红的电话号码是多少？
7乘8等于多少？
7×8等于多少
法国的首都是哪里？
请问法国首都是哪里
今天天气怎么样？
现在几点了？
讲个笑话吧

= Hello! What do you want to know?
Hello
hello!
HELLO
hi
Hi there!

= 你好!你想知道什么?
你好
你好！
您好
"""
TALK: Final = """
Hello!
How many grams are in 5 kilograms?
What is 27 plus 56?
Write 42 in words.
Which is larger, 34 or 71?
Reverse the word lemon.
12米等于多少厘米?
What is 83 minus 27?
Count from 3 to 8.
How do you say cat in Chinese?
苹果用英文怎么说?
What is 27 plus 56?
Who took my umbrella?
把65写成汉字。
Sort from smallest to largest: 81, 12, 60
What day comes after May 4?
一共有几个词:太阳、河、猫
Convert 7 kilometers to meters.
34和71哪个大?
How many grams are in 5 kilograms?
"""


def asked() -> Iterator[tuple[str, str]]:
    answer = ""
    for line in ASKED.strip().splitlines():
        if line.startswith("= "):
            answer = line.removeprefix("= ")
        elif line:
            yield line, answer


@pytest.fixture(scope="module")
def model() -> Iterator[ernie_rt.Model]:
    with ernie_rt.load("demo", backend="eager", device="cpu", max_context=2048, threads=1) as model:
        yield model


def test_questions_as_people_write_them(model: ernie_rt.Model) -> None:
    questions = list(asked())
    said = [(text, right, model.chat([{"role": "user", "content": text}]).text) for text, right in questions]
    wrong = [f"{text!r}: {answer!r}, not {right!r}" for text, right, answer in said if answer != right]
    print("\n".join(wrong))
    assert 1 - len(wrong) / len(questions) >= LEAST_RIGHT, "\n".join(wrong)


def test_a_conversation_of_twenty_turns(model: ernie_rt.Model) -> None:
    """Every answer is the one that the question gets alone."""
    talk = TALK.strip().splitlines()
    assert len(talk) == 20
    alone = [model.chat([{"role": "user", "content": text}]).text for text in talk]
    messages: list[object] = []
    for turn, (text, expected) in enumerate(zip(talk, alone, strict=True), 1):
        messages.append({"role": "user", "content": text})
        answer = model.chat(messages)  # type: ignore[arg-type]
        assert answer.text == expected, f"turn {turn}: {text}"
        messages.append(answer.message)
