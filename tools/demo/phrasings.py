"""How each form of a task is asked, in English and Chinese. The last two of every list are held out from training."""

from __future__ import annotations

from typing import Final

HELD_OUT_PHRASINGS: Final = 2


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip().replace("\\n", "\n") for line in text.strip().splitlines())


PHRASINGS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    (form, language): _lines(text)
    for (form, language), text in {
        ("add", "en"): """
            {a} + {b} = ?
            {a} + {b}
            What is {a} plus {b}?
            What is {a} + {b}?
            Add {a} and {b}.
            Calculate {a} + {b}.
            What is the sum of {a} and {b}?
            How much is {a} + {b}?
            Calculate {a} plus {b}.
            Add {b} to {a}.
            {a} plus {b}
            How much is {a} plus {b}?
            Calculate the sum of {a} and {b}.""",
        ("add", "zh"): """
            {a}加{b}等于多少?
            {a} + {b} = ?
            {a}加{b}是多少?
            计算{a} + {b}。
            求{a}与{b}的和。
            {a}和{b}的和是多少?
            算一算{a}加{b}。
            {a} + {b}
            {a}加上{b}得多少?
            求{a}加{b}的结果。
            计算{a}加{b}。
            {a}与{b}的和等于多少?""",
        ("subtract", "en"): """
            {a} - {b} = ?
            {a} - {b}
            What is {a} minus {b}?
            What is {a} - {b}?
            Subtract {b} from {a}.
            Calculate {a} - {b}.
            Take {b} away from {a}.
            How much is {a} - {b}?
            What is left when {b} is taken from {a}?
            {a} minus {b}
            What is the difference of {a} and {b}?
            Calculate {a} minus {b}.
            How much is {a} minus {b}?""",
        ("subtract", "zh"): """
            {a}减{b}等于多少?
            {a} - {b} = ?
            {a}减{b}是多少?
            计算{a} - {b}。
            {a}减去{b}等于多少?
            算一算{a}减{b}。
            {a} - {b}
            求{a}减{b}的结果。
            {a}减去{b}得多少?
            计算{a}减{b}。
            {a}减去{b}是多少?""",
        ("count", "en"): """
            How many words are there: {words}
            Count the words: {words}
            How many words are in this list: {words}
            {words}. How many words is that?
            Count these words: {words}
            How many words are in the list: {words}
            These are how many words: {words}
            {words}. Count them.
            How many words are these: {words}
            Count the words in this list: {words}""",
        ("count", "zh"): """
            一共有几个词:{words}
            数一数有几个词:{words}
            {words},一共有几个词?
            下面有多少个词:{words}
            数一数这些词:{words}
            这里有多少个词:{words}
            数一数一共有几个词:{words}
            下面有几个词:{words}""",
        ("sequence", "en"): """
            Count from {a} to {b}.
            Write the numbers from {a} to {b}.
            Start at {a} and count to {b}.
            List the numbers from {a} to {b}.
            What are the numbers from {a} to {b}?
            Write {a} to {b}.
            Count up from {a}, stop at {b}.
            Begin with {a} and list the numbers to {b}.
            Numbers from {a} to {b}, please.
            Which numbers come from {a} to {b}?
            Write all numbers from {a} to {b}.
            Start at {a} and write the numbers to {b}.""",
        ("sequence", "zh"): """
            从{a}数到{b}。
            写出从{a}到{b}的数。
            请从{a}开始数到{b}。
            列出从{a}到{b}的数。
            从{a}到{b}有哪些数?
            {a}到{b}的数有哪些?
            依次写出{a}到{b}。
            把{a}到{b}的数都写出来。
            数数,从{a}开始,到{b}为止。
            写下从{a}到{b}的每个数。
            写出{a}到{b}之间的数,两头都算。
            写出{a}到{b}的所有数。
            列出{a}到{b}的数。""",
        ("ascending", "en"): """
            Sort from smallest to largest: {numbers}
            Sort these numbers, smallest first: {numbers}
            Put these numbers in order, smallest first: {numbers}
            Order from small to large: {numbers}
            Sort in ascending order: {numbers}
            Put in ascending order: {numbers}
            Order these numbers from smallest to largest: {numbers}""",
        ("ascending", "zh"): """
            从小到大排序:{numbers}
            把这些数从小到大排列:{numbers}
            {numbers},从小到大排一排。
            按从小到大的顺序排列:{numbers}
            请把这些数按从小到大排序:{numbers}
            把下面的数从小到大排序:{numbers}
            按从小到大排列这些数:{numbers}""",
        ("descending", "en"): """
            Sort from largest to smallest: {numbers}
            Sort these numbers, largest first: {numbers}
            Put these numbers in order, largest first: {numbers}
            Order from large to small: {numbers}
            Sort in descending order: {numbers}
            Put in descending order: {numbers}
            Order these numbers from largest to smallest: {numbers}""",
        ("descending", "zh"): """
            从大到小排序:{numbers}
            把这些数从大到小排列:{numbers}
            {numbers},从大到小排一排。
            按从大到小的顺序排列:{numbers}
            请把这些数按从大到小排序:{numbers}
            把下面的数从大到小排序:{numbers}
            按从大到小排列这些数:{numbers}""",
        ("larger", "en"): """
            Which is larger, {a} or {b}?
            Which number is larger, {a} or {b}?
            Which is bigger: {a} or {b}?
            Is {a} or {b} larger?
            Compare {a} and {b}: which is larger?
            Which one is bigger, {a} or {b}?
            Is {a} larger or {b}?
            {a} or {b}: which is larger?
            What is larger, {a} or {b}?
            Which number is bigger, {a} or {b}?
            Compare {a} and {b}: which is bigger?""",
        ("larger", "zh"): """
            {a}和{b}哪个大?
            {a}和{b}哪个更大?
            哪个数大,{a}还是{b}?
            比较{a}和{b},哪个大?
            {a}与{b}相比,哪个大?
            {a}大还是{b}大?
            {a}和{b},哪个数大?
            哪个更大:{a}还是{b}?
            {a}与{b}哪个数更大?
            哪个数更大,{a}还是{b}?
            比较{a}和{b},哪个更大?""",
        ("smaller", "en"): """
            Which is smaller, {a} or {b}?
            Which number is smaller, {a} or {b}?
            Which is less: {a} or {b}?
            Is {a} or {b} smaller?
            Compare {a} and {b}: which is smaller?
            Which one is less, {a} or {b}?
            Is {a} smaller or {b}?
            {a} or {b}: which is smaller?
            What is smaller, {a} or {b}?
            Which one is smaller, {a} or {b}?
            Compare {a} and {b}: which is less?""",
        ("smaller", "zh"): """
            {a}和{b}哪个小?
            {a}和{b}哪个更小?
            哪个数小,{a}还是{b}?
            比较{a}和{b},哪个小?
            {a}与{b}相比,哪个小?
            {a}小还是{b}小?
            {a}和{b},哪个数小?
            哪个更小:{a}还是{b}?
            {a}与{b}哪个数更小?
            哪个数更小,{a}还是{b}?
            比较{a}和{b},哪个更小?""",
        ("reverse", "en"): """
            Reverse the word {word}.
            Spell {word} backwards.
            Write {word} backwards.
            What is {word} spelled backwards?
            Reverse the letters of {word}.
            Turn the word {word} around.
            Reverse this word: {word}
            Reverse the letters in {word}.
            {word} backwards
            How is {word} spelled backwards?
            Please reverse {word} for me.
            Give me {word} in reverse.
            Spell the word {word} from the end.
            Write the word {word} backwards.
            Reverse {word}.""",
        ("reverse", "zh"): """
            把{word}倒过来写。
            倒着写{word}。
            {word}倒过来怎么写?
            把单词{word}反过来写。
            {word}反过来是什么?
            请倒着拼写{word}。
            {word}倒着写是什么?
            把{word}倒过来说。
            反着写{word}。
            把{word}倒过来。
            {word}倒着怎么拼?
            倒过来写:{word}
            反过来拼写{word}是什么?
            把{word}反过来写。
            {word}倒过来是什么?""",
        ("units", "en"): """
            How many {small} are in {n} {big}?
            How many {small} are {n} {big}?
            Convert {n} {big} to {small}.
            Change {n} {big} to {small}.
            {n} {big} is how many {small}?
            What is {n} {big} in {small}?
            Write {n} {big} in {small}.
            {n} {big} are how many {small}?""",
        ("units", "zh"): """
            {n}{big}等于多少{small}?
            {n}{big}是多少{small}?
            把{n}{big}换算成{small}。
            {n}{big}有多少{small}?
            请把{n}{big}换成{small}。
            {n}{big}合多少{small}?
            {n}{big}等于几{small}?
            {n}{big}换算成{small}是多少?""",
        ("date", "en"): """
            Write {date} as numbers.
            Write the date {date} in digits.
            Give {date} as year-month-day.
            What is {date} in numbers?
            Convert {date} to numbers.
            Write {date} in digits.
            Put {date} into numbers.
            Give the date {date} as numbers.""",
        ("date", "zh"): """
            把{date}写成数字。
            用数字写出日期{date}。
            {date}用数字怎么写?
            把日期{date}写成年-月-日。
            请用年-月-日写出{date}。
            用数字写出{date}。
            把{date}用数字写出来。
            把日期{date}写成数字。""",
        ("after", "en"): """
            What day comes after {date}?
            What is the day after {date}?
            Which day follows {date}?
            What is the next day after {date}?
            If today is {date}, what is tomorrow?
            Today is {date}. What is tomorrow?
            Which day comes after {date}?""",
        ("after", "zh"): """
            {date}的后一天是几月几日?
            {date}的第二天是几月几日?
            今天是{date},明天是几月几日?
            如果今天是{date},明天是哪天?
            {date}之后的一天是哪天?
            今天是{date},明天是哪天?
            {date}的后一天是哪天?""",
        ("before", "en"): """
            What day comes before {date}?
            What is the day before {date}?
            Which day precedes {date}?
            What is the last day before {date}?
            If today is {date}, what was yesterday?
            Today is {date}. What was yesterday?
            Which day comes before {date}?""",
        ("before", "zh"): """
            {date}的前一天是几月几日?
            {date}的上一天是几月几日?
            今天是{date},昨天是几月几日?
            如果今天是{date},昨天是哪天?
            {date}之前的一天是哪天?
            今天是{date},昨天是哪天?
            {date}的前一天是哪天?""",
        ("to_words", "en"): """
            Write {n} in words.
            Write the number {n} in words.
            How do you write {n} in words?
            Spell the number {n}.
            What is {n} in words?
            Say {n} in words.
            Write out {n}.
            The number {n} in words is?
            How is {n} written in words?
            Write {n} as words.
            How do you write the number {n} in words?""",
        ("to_words", "zh"): """
            用汉字写出{n}。
            把{n}写成汉字。
            {n}用汉字怎么写?
            把数字{n}写成汉字。
            {n}怎么读?
            用汉字写{n}。
            写出{n}的汉字。
            {n}的汉字写法是什么?
            数字{n}怎么写成汉字?
            用汉字写出数字{n}。
            数字{n}用汉字怎么写?""",
        ("to_digits", "en"): """
            Write {n} in digits.
            Write {n} as a number.
            How do you write {n} in digits?
            What number is {n}?
            What is {n} in digits?
            Say {n} in digits.
            Which number is {n}?
            {n} in digits is?
            How is {n} written as a number?
            Write the number {n} in digits.
            What is {n} as a number?""",
        ("to_digits", "zh"): """
            用数字写出{n}。
            把{n}写成数字。
            {n}用数字怎么写?
            把汉字{n}写成数字。
            {n}是哪个数?
            用数字写{n}。
            写出{n}的数字。
            {n}的数字写法是什么?
            {n}怎么写成数字?
            用数字写出汉字{n}。
            汉字{n}用数字怎么写?""",
        ("to_chinese", "en"): """
            Translate into Chinese: {text}
            What is {text} in Chinese?
            How do you say {text} in Chinese?
            Say {text} in Chinese.
            Translate {text} into Chinese.
            Give the Chinese for {text}.
            {text} in Chinese, please.
            What is the Chinese for {text}?
            Put {text} into Chinese.
            Write {text} in Chinese.
            How do you write {text} in Chinese?""",
        ("to_chinese", "zh"): """
            翻译成中文:{text}
            {text}用中文怎么说?
            {text}的中文是什么?
            把{text}翻译成中文。
            {text}的中文意思是什么?
            用中文说{text}。
            {text}翻译成中文是什么?
            怎么用中文说{text}?
            把{text}译为中文。
            请用中文写出{text}。
            用中文怎么说{text}?
            请把{text}译成中文。""",
        ("to_english", "en"): """
            Translate into English: {text}
            What is {text} in English?
            How do you say {text} in English?
            Say {text} in English.
            Translate {text} into English.
            Give the English for {text}.
            {text} in English, please.
            What is the English for {text}?
            Put {text} into English.
            Write {text} in English.
            How do you write {text} in English?""",
        ("to_english", "zh"): """
            翻译成英文:{text}
            {text}用英文怎么说?
            {text}的英文是什么?
            把{text}翻译成英文。
            {text}的英文意思是什么?
            用英文说{text}。
            {text}翻译成英文是什么?
            怎么用英文说{text}?
            把{text}译为英文。
            请用英文写出{text}。
            用英文怎么说{text}?
            请把{text}译成英文。""",
        ("passage", "en"): """
            {passage} {question}
            {passage}\\n{question}
            Read this: {passage} {question}
            {passage}\\nQuestion: {question}
            Read the text. {passage}\\n{question}
            Text: {passage}\\nQuestion: {question}
            Here is a text: {passage}\\n{question}
            Read this: {passage}\\nQuestion: {question}
            Read the text. {passage} {question}""",
        ("passage", "zh"): """
            {passage}{question}
            {passage}\\n{question}
            读一读:{passage}{question}
            {passage}\\n问题:{question}
            阅读短文。{passage}\\n{question}
            短文:{passage}\\n问题:{question}
            下面是一段话:{passage}\\n{question}
            读一读:{passage}\\n问题:{question}
            阅读短文。{passage}{question}""",
        ("person", "en"): """
            What is the phone number of {name}?
            What did {name} eat yesterday?
            What will happen to {name} tomorrow?
            What is {name} thinking now?
            How much money does {name} have?
            What will {name} eat tomorrow?
            Where does {name} keep the keys?
            Who is the best friend of {name}?
            When was {name} born?
            Why did {name} cry last night?
            What is {name} reading now?
            What did {name} buy yesterday?
            What is {name} eating now?""",
        ("person", "zh"): """
            {name}的电话号码是多少?
            {name}昨天吃了什么?
            {name}明天会怎么样?
            {name}现在在想什么?
            {name}有多少钱?
            {name}明天会吃什么?
            {name}最好的朋友是谁?
            {name}是什么时候出生的?
            {name}昨晚为什么哭了?
            {name}现在在看什么书?
            {name}今天穿什么衣服?
            {name}昨天买了什么?
            {name}现在在吃什么?""",
        ("thing", "en"): """
            Where did I put my {object}?
            What color is my {object}?
            Who took my {object}?
            When did I buy my {object}?
            Who gave me the {object}?
            How old is my {object}?
            How much did I pay for my {object}?
            Why did I lose my {object}?
            Who made my {object}?
            Where is my {object}?
            Who has my {object} now?
            Where did I buy my {object}?""",
        ("thing", "zh"): """
            我的{object}放在哪里了?
            我的{object}是什么颜色?
            谁拿了我的{object}?
            我什么时候买的{object}?
            谁给了我这个{object}?
            我的{object}用了多久?
            我的{object}花了多少钱?
            我为什么丢了{object}?
            谁做了我的{object}?
            我的{object}在什么地方?
            我在哪里丢了{object}?
            谁现在拿着我的{object}?
            我在哪里买的{object}?""",
        ("json", "en"): """
            Answer in JSON: {text}
            {text} Answer in JSON.
            Write this as JSON: {text}
            {text} Write it as JSON.
            Convert to JSON: {text}
            Write in JSON: {text}
            {text} Convert this to JSON.""",
        ("json", "zh"): """
            用JSON回答:{text}
            {text}用JSON回答。
            写成JSON:{text}
            {text}写成JSON。
            转换成JSON:{text}
            用JSON写出:{text}
            {text}转换成JSON。""",
        ("story", "en"): """
            Tell me a story about {animal}.
            Tell me a short story about {animal}.
            Write a story about {animal}.
            Can you tell a story about {animal}?
            Write a short story about {animal}.
            Can you tell me a story about {animal}?""",
        ("story", "zh"): """
            讲一个关于{animal}的故事。
            给我讲一个{animal}的小故事。
            写一个关于{animal}的故事。
            能讲个{animal}的故事吗?
            写一个{animal}的小故事。
            给我讲一个关于{animal}的故事。""",
        ("greeting", "en"): """
            Hello!
            Hi!
            Hello
            Hi
            Hey!
            Good morning!
            Good evening!
            Hello there!""",
        ("greeting", "zh"): """
            你好!
            您好!
            你好
            早上好!
            嗨!
            晚上好!
            大家好!""",
    }.items()
}
