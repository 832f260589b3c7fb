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
            {a} + {b} =
            {a} plus {b} is?
            {a} plus {b} equals?
            What do {a} and {b} make together?
            What do you get when you add {a} and {b}?
            Sum of {a} and {b}
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
            {a} + {b} =
            {a}加{b}
            {a}加{b}等于几?
            {a}加{b}得几?
            {a}和{b}加起来是多少?
            {a}加{b}等于
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
            {a} - {b} =
            {a} minus {b} is?
            {a} minus {b} equals?
            What do you get when you subtract {b} from {a}?
            What is {a} less {b}?
            What is left of {a} without {b}?
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
            {a} - {b} =
            {a}减{b}
            {a}减{b}等于几?
            {a}减掉{b}是多少?
            {a}比{b}多多少?
            从{a}里减去{b}还剩多少?
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
            How many words: {words}
            Count: {words}
            How many words are these: {words}
            Count the words in this list: {words}""",
        ("count", "zh"): """
            一共有几个词:{words}
            数一数有几个词:{words}
            {words},一共有几个词?
            下面有多少个词:{words}
            数一数这些词:{words}
            这里有多少个词:{words}
            几个词:{words}
            数一下有多少个词:{words}
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
            Count {a} to {b}.
            Count up from {a} to {b}.
            Numbers from {a} to {b}
            {a} to {b}
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
            {a}到{b}
            数数,从{a}数到{b}。
            从{a}到{b}都有什么数?
            写出{a}到{b}的所有数。
            列出{a}到{b}的数。""",
        ("ascending", "en"): """
            Sort from smallest to largest: {numbers}
            Sort these numbers, smallest first: {numbers}
            Put these numbers in order, smallest first: {numbers}
            Order from small to large: {numbers}
            Sort in ascending order: {numbers}
            Sort {numbers}
            Sort: {numbers}
            Sort these numbers: {numbers}
            Sort {numbers} from smallest to largest.
            Sort {numbers} in ascending order.
            Put in ascending order: {numbers}
            Order these numbers from smallest to largest: {numbers}""",
        ("ascending", "zh"): """
            从小到大排序:{numbers}
            把这些数从小到大排列:{numbers}
            {numbers},从小到大排一排。
            按从小到大的顺序排列:{numbers}
            请把这些数按从小到大排序:{numbers}
            排序:{numbers}
            把{numbers}排序。
            把{numbers}从小到大排序。
            {numbers}从小到大怎么排?
            把下面的数从小到大排序:{numbers}
            按从小到大排列这些数:{numbers}""",
        ("descending", "en"): """
            Sort from largest to smallest: {numbers}
            Sort these numbers, largest first: {numbers}
            Put these numbers in order, largest first: {numbers}
            Order from large to small: {numbers}
            Sort in descending order: {numbers}
            Sort {numbers} from largest to smallest.
            Sort {numbers} in descending order.
            Sort {numbers}, largest first.
            Put in descending order: {numbers}
            Order these numbers from largest to smallest: {numbers}""",
        ("descending", "zh"): """
            从大到小排序:{numbers}
            把这些数从大到小排列:{numbers}
            {numbers},从大到小排一排。
            按从大到小的顺序排列:{numbers}
            请把这些数按从大到小排序:{numbers}
            把{numbers}从大到小排序。
            {numbers}从大到小怎么排?
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
            Which is greater, {a} or {b}?
            Which of {a} and {b} is larger?
            {a} or {b}, which is bigger?
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
            {a}和{b}谁大?
            {a}跟{b}比,哪个大?
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
            Which of {a} and {b} is smaller?
            {a} or {b}, which is smaller?
            What is less, {a} or {b}?
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
            {a}和{b}谁小?
            {a}跟{b}比,哪个小?
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
            {word} reversed
            Spell {word} in reverse.
            Backwards: {word}
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
            {word}倒过来
            {word}反过来怎么写?
            反过来:{word}
            把{word}反过来写。
            {word}倒过来是什么?""",
        ("units", "en"): """
            How many {small} are in {n} {big}?
            How many {small} are {n} {big}?
            Convert {n} {big} to {small}.
            Change {n} {big} to {small}.
            {n} {big} is how many {small}?
            What is {n} {big} in {small}?
            {n} {big} in {small}
            {n} {big} to {small}
            {n} {big} = ? {small}
            How many {small} in {n} {big}?
            How many {small} is {n} {big}?
            Convert {n} {big} into {small}.
            How many {small} make {n} {big}?
            Write {n} {big} in {small}.
            {n} {big} are how many {small}?""",
        ("units", "zh"): """
            {n}{big}等于多少{small}?
            {n}{big}是多少{small}?
            把{n}{big}换算成{small}。
            {n}{big}有多少{small}?
            请把{n}{big}换成{small}。
            {n}{big}合多少{small}?
            {n}{big}=?{small}
            {n}{big}多少{small}?
            {n}{big}换成{small}
            {n}{big}是几{small}?
            {n}{big}转换成{small}。
            {n}{big}等于几{small}?
            {n}{big}换算成{small}是多少?""",
        ("date", "en"): """
            Write {date} as numbers.
            Write the date {date} in digits.
            Give {date} as year-month-day.
            What is {date} in numbers?
            Convert {date} to numbers.
            Write {date} in digits.
            {date} in numbers
            {date} as year-month-day
            Put {date} into numbers.
            Give the date {date} as numbers.""",
        ("date", "zh"): """
            把{date}写成数字。
            用数字写出日期{date}。
            {date}用数字怎么写?
            把日期{date}写成年-月-日。
            请用年-月-日写出{date}。
            用数字写出{date}。
            {date}写成数字
            用年-月-日写{date}。
            把{date}用数字写出来。
            把日期{date}写成数字。""",
        ("after", "en"): """
            What day comes after {date}?
            What is the day after {date}?
            Which day follows {date}?
            What is the next day after {date}?
            If today is {date}, what is tomorrow?
            The day after {date}
            What date comes after {date}?
            What comes after {date}?
            Today is {date}. What is tomorrow?
            Which day comes after {date}?""",
        ("after", "zh"): """
            {date}的后一天是几月几日?
            {date}的第二天是几月几日?
            今天是{date},明天是几月几日?
            如果今天是{date},明天是哪天?
            {date}之后的一天是哪天?
            {date}的下一天是几月几日?
            {date}的第二天是哪天?
            {date}后面一天是哪天?
            今天是{date},明天是哪天?
            {date}的后一天是哪天?""",
        ("before", "en"): """
            What day comes before {date}?
            What is the day before {date}?
            Which day precedes {date}?
            What is the last day before {date}?
            If today is {date}, what was yesterday?
            The day before {date}
            What date comes before {date}?
            What comes before {date}?
            Today is {date}. What was yesterday?
            Which day comes before {date}?""",
        ("before", "zh"): """
            {date}的前一天是几月几日?
            {date}的上一天是几月几日?
            今天是{date},昨天是几月几日?
            如果今天是{date},昨天是哪天?
            {date}之前的一天是哪天?
            {date}的上一天是哪天?
            {date}前面一天是哪天?
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
            {n} in words
            Spell out {n}.
            Write {n} in letters.
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
            {n}的汉字
            {n}怎么念?
            {n}用中文怎么读?
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
            {n} in digits
            {n} in numbers
            Write {n} in numbers.
            Write {n} with digits.
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
            {n}写成数字
            {n}的阿拉伯数字是什么?
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
            {text} in Chinese
            Chinese for {text}
            Translate {text}
            Translate {text} to Chinese.
            How do I say {text} in Chinese?
            What is the Chinese word for {text}?
            What does {text} mean in Chinese?
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
            {text}中文怎么说?
            {text}的中文
            {text}中文
            {text}的中文是?
            {text}是什么意思?
            翻译{text}
            {text}用汉语怎么说?
            {text}翻译成中文
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
            {text} in English
            English for {text}
            Translate {text}
            Translate {text} to English.
            How do I say {text} in English?
            What is the English word for {text}?
            What does {text} mean in English?
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
            {text}英文怎么说?
            {text}的英文
            {text}英文
            {text}的英文是?
            {text}用英语怎么说?
            翻译{text}
            {text}英语怎么说?
            {text}的英语是什么?
            {text}翻译成英语
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
        ("times", "en"): """
            What is {a} times {b}?
            {a} * {b}
            {a} × {b} = ?
            {a} x {b}
            Multiply {a} by {b}.
            How much is {a} times {b}?
            {a} times {b}
            What is {a} multiplied by {b}?
            Calculate {a} × {b}.
            {a} * {b} = ?
            What is the product of {a} and {b}?
            Calculate {a} times {b}.""",
        ("times", "zh"): """
            {a}乘{b}等于多少?
            {a} × {b} = ?
            {a} * {b}
            {a}乘以{b}是多少?
            计算{a} × {b}。
            {a}乘{b}
            {a} * {b} = ?
            求{a}与{b}的积。
            {a}乘以{b}等于几?
            {a}和{b}相乘是多少?
            算一算{a}乘{b}。""",
        ("divide", "en"): """
            What is {a} divided by {b}?
            {a} / {b}
            {a} ÷ {b} = ?
            Divide {a} by {b}.
            How much is {a} divided by {b}?
            {a} divided by {b}
            Calculate {a} / {b}.
            {a} ÷ {b}
            What is {a} over {b}?
            Calculate {a} divided by {b}.""",
        ("divide", "zh"): """
            {a}除以{b}等于多少?
            {a} ÷ {b} = ?
            {a} / {b}
            计算{a} ÷ {b}。
            {a}除以{b}
            {a}除以{b}是多少?
            {a} ÷ {b}
            算一算{a}除以{b}。
            {a}除以{b}得几?""",
        ("chain", "en"): """
            What is {a} plus {b} plus {c}?
            {a} + {b} + {c} = ?
            {a} + {b} + {c}
            {a} + {b} - {c}
            {a} - {b} + {c} = ?
            What is {a} + {b} - {c}?
            Add {a}, {b} and {c}.
            {a} * {b} + {c}
            What is {a} minus {b} minus {c}?
            What is the sum of {a}, {b} and {c}?
            {a} - {b} - {c} = ?""",
        ("chain", "zh"): """
            {a}加{b}加{c}等于多少?
            {a} + {b} + {c} = ?
            {a} + {b} + {c}
            {a} + {b} - {c}
            {a}加{b}减{c}是多少?
            计算{a} - {b} + {c}。
            {a} * {b} + {c}
            {a}、{b}与{c}的和是多少?
            {a}减{b}减{c}等于多少?""",
        ("country", "en"): """
            What is the capital of {country}?
            Who is the president of {country}?
            How many people live in {country}?
            Where is {country}?
            What language do people speak in {country}?
            How is the weather in {country}?
            How big is {country}?
            What do people eat in {country}?
            Tell me about {country}.
            How do I get to {country}?
            What is {country} famous for?
            What money do they use in {country}?
            Capital of {country}
            What is the largest city in {country}?
            Who was the first king of {country}?""",
        ("country", "zh"): """
            {country}的首都是哪里?
            {country}的总统是谁?
            {country}有多少人?
            {country}在哪里?
            {country}人说什么语言?
            {country}的天气怎么样?
            {country}有多大?
            {country}人吃什么?
            介绍一下{country}。
            怎么去{country}?
            {country}用什么钱?
            {country}首都
            {country}最大的城市是哪个?
            {country}的第一个国王是谁?""",
        ("subject", "en"): """
            What is {subject}?
            Explain {subject}.
            Who invented {subject}?
            Why do people like {subject}?
            Write a poem about {subject}.
            Tell me a joke about {subject}.
            How does {subject} work?
            What do you think of {subject}?
            Do you like {subject}?
            Give me three facts about {subject}.
            When did {subject} begin?
            Write an essay about {subject}.
            Teach me {subject}.
            How much does {subject} cost?
            What is the best book about {subject}?
            Why is {subject} important?
            {subject}
            Tell me about {subject}.
            What is the history of {subject}?
            Where does {subject} come from?""",
        ("subject", "zh"): """
            {subject}是什么?
            解释一下{subject}。
            谁发明了{subject}?
            人们为什么喜欢{subject}?
            写一首关于{subject}的诗。
            讲一个{subject}的笑话。
            你觉得{subject}怎么样?
            你喜欢{subject}吗?
            {subject}是什么时候开始的?
            写一篇关于{subject}的文章。
            教我{subject}。
            {subject}多少钱?
            {subject}为什么重要?
            {subject}
            什么是{subject}?
            说说{subject}。
            {subject}的历史是什么?
            {subject}是从哪里来的?""",
        ("world", "en"): """
            What time is it?
            What is the weather today?
            How old are you?
            Where do you live?
            What day is it today?
            What is the date today?
            How do I get to the station?
            What should I eat tonight?
            Who won the game?
            What is the meaning of life?
            Can you write code?
            Write a poem.
            Tell me a joke.
            Sing a song.
            What is the news today?
            Who is the richest man in the world?
            How far is the moon?
            How fast is light?
            Why is the sky blue?
            How high is Mount Everest?
            Which is the largest country?
            Who wrote Hamlet?
            How do I cook rice?
            What is the best movie?
            What is the square root of 16?
            When is Christmas?
            How many days are in a year?
            How many legs does a spider have?
            How many people live on earth?
            Is it going to rain tomorrow?
            How are you?
            What are you doing?
            Do you love me?
            What is my name?
            Who am I?
            Help me with my homework.
            What is the largest animal?
            Who painted the Mona Lisa?
            What should I do today?
            Why?
            Where am I?
            Fix my computer.
            Book a flight for me.
            Which team is the best?
            How do I lose weight?
            What is the longest river?
            Who was the first man on the moon?""",
        ("world", "zh"): """
            现在几点?
            今天天气怎么样?
            你几岁了?
            你住在哪里?
            今天星期几?
            今天是几号?
            去车站怎么走?
            今晚吃什么?
            谁赢了比赛?
            人生的意义是什么?
            你会写代码吗?
            写一首诗。
            讲个笑话。
            唱一首歌。
            今天有什么新闻?
            世界上最有钱的人是谁?
            月亮有多远?
            光有多快?
            天空为什么是蓝色的?
            最高的山是哪座?
            最大的国家是哪个?
            红楼梦是谁写的?
            米饭怎么做?
            最好看的电影是什么?
            一年有多少天?
            蜘蛛有几条腿?
            地球上有多少人?
            明天会下雨吗?
            你好吗?
            你在做什么?
            你爱我吗?
            我叫什么名字?
            我是谁?
            帮我做作业。
            最大的动物是什么?
            我今天该做什么?
            为什么?
            我在哪里?
            帮我修电脑。
            帮我订机票。
            怎么减肥?
            最长的河是哪条?
            第一个登上月亮的人是谁?""",
        ("thanks", "en"): """
            Thank you!
            Thanks!
            Thanks
            Thank you
            Thank you very much.
            Great, thanks!
            OK, thank you.
            Many thanks!""",
        ("thanks", "zh"): """
            谢谢!
            谢谢
            谢谢你!
            多谢!
            非常感谢。
            好的,谢谢。
            谢谢您!
            太好了,谢谢!""",
        ("farewell", "en"): """
            Bye!
            Goodbye!
            Bye
            See you!
            Good night!
            See you later.
            Bye bye!
            See you tomorrow.""",
        ("farewell", "zh"): """
            再见!
            再见
            拜拜!
            晚安!
            下次见!
            回头见。
            回见!
            明天见!""",
        ("identity", "en"): """
            Who are you?
            What are you?
            What is your name?
            What can you do?
            Tell me about yourself.
            What do you know?
            Who am I talking to?
            What can I ask you?""",
        ("identity", "zh"): """
            你是谁?
            你是什么?
            你叫什么名字?
            你会做什么?
            介绍一下你自己。
            你能做什么?
            你会什么?
            我可以问你什么?""",
        ("json", "en"): """
            Answer in JSON: {text}
            {text} Answer in JSON.
            Write this as JSON: {text}
            {text} Write it as JSON.
            Convert to JSON: {text}
            {text} JSON
            JSON: {text}
            {text} As JSON, please.
            Turn this into JSON: {text}
            Write in JSON: {text}
            {text} Convert this to JSON.""",
        ("json", "zh"): """
            用JSON回答:{text}
            {text}用JSON回答。
            写成JSON:{text}
            {text}写成JSON。
            转换成JSON:{text}
            JSON:{text}
            {text}用JSON写。
            把这句话写成JSON:{text}
            用JSON写出:{text}
            {text}转换成JSON。""",
        ("story", "en"): """
            Tell me a story about {animal}.
            Tell me a short story about {animal}.
            Write a story about {animal}.
            Can you tell a story about {animal}?
            A story about {animal}
            Tell a story about {animal}.
            Write a short story about {animal}.
            Can you tell me a story about {animal}?""",
        ("story", "zh"): """
            讲一个关于{animal}的故事。
            给我讲一个{animal}的小故事。
            写一个关于{animal}的故事。
            能讲个{animal}的故事吗?
            讲个{animal}的故事。
            {animal}的故事
            写一个{animal}的小故事。
            给我讲一个关于{animal}的故事。""",
        ("greeting", "en"): """
            Hello!
            Hi!
            Hello
            Hi
            Hey!
            Good morning!
            Hey
            Good afternoon!
            Hi there
            Good evening!
            Hello there!""",
        ("greeting", "zh"): """
            你好!
            您好!
            你好
            早上好!
            嗨!
            您好
            下午好!
            嗨
            晚上好!
            大家好!""",
    }.items()
}
