"""A tokenizer made and saved as a variation says, and what it makes of texts once it is read back."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from support.saved.told import Judged
from support.saved.variation import TAGS, Variation

DEMO: Final = Path(__file__).parents[3] / "ernie_rt" / "demo"
"""The folder whose tokenizer files most of them read."""
NAMED: Final = ("sys_start_token", "sys_end_token", "header_start_token", "header_end_token")
"""The demo's own names of special tokens; ERNIE's have them too."""
TEXTS: Final = (
    "How many grams are in 5 kilograms?",
    "5公里等于多少米?",
    " leading and  two  spaces ",
    "line\nline\n\n\nend\n",
    "tab\tand\r\nreturn",
    "emoji 🙂 👩‍👩‍👧 🇨🇳",
    "你好世界，今天天气很好。",
    "1234567890 3.14 ½ ² ①",
    "é e\u0301 ภาษา 龘 \u3000wide\xa0space",
    "▁ itself ▁▁x",
    "",
    " ",
    "x",
    "def f(x):\n    return x  # code",
    "</s> <s> <unk> <mask:4> <|end_of_sentence|>",
    "Assistant: User: \n",
)
"""The special strings in one of them are text here: content is never matched with special tokens."""
AROUND: Final = ("{}", "see {} here", "a{}b", "查询{}吧", "  {}  {}", "{}\n5{}", "({})")
CHATS: Final = (
    [{"role": "user", "content": "5公里等于多少米?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello  there "},
        {"role": "assistant", "content": "Hi!\nWhat now?"},
        {"role": "user", "content": "What is 3 + 4?"},
    ],
)
CHATML: Final = (
    "{% for m in messages %}{{ '<mask:6>' + m.role + '\n' + m.content + '<mask:7>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<mask:6>assistant\n' }}{% endif %}"
)
ENDING: Final = (
    "{% for m in messages %}{{ m.role + '\n' + m.content + eos_token + '\n \n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)
GENERATION: Final = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}{% else %}{{ m.role + ': ' + m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def make_tokenizer(variation: Variation) -> Any:
    """The tokenizer of a variation; None where it has none."""
    if variation.tokenizer == "none":
        return None
    if variation.tokenizer.startswith("trained"):
        tokenizer: Any = transformers.PreTrainedTokenizerFast(
            tokenizer_object=TRAINED[variation.tokenizer](), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        )
    else:
        tokenizer = getattr(transformers, variation.tokenizer).from_pretrained(DEMO, **variation.tokenizer_options)
    tokenizer.add_tokens([AddedToken(**token) for token in variation.added])
    if variation.specials:
        tokenizer.add_special_tokens({
            name: AddedToken(**value) if isinstance(value, dict) else value
            for name, value in variation.specials.items()
        })  # fmt: skip
    own = tokenizer.chat_template or CHATML
    tokenizer.chat_template = {
        "kept": tokenizer.chat_template,
        "none": None,
        "default system": "{{ '' if messages[0].role == 'system' else 'You are helpful.\n' }}" + own,
        "trim": own.replace('message["content"] + "\n"', 'message["content"] | trim + "\n"'),
        "chatml": CHATML,
        "ending": ENDING,
        "generation": GENERATION,
        "named": {"default": own, "tool_use": CHATML},
    }[variation.template]
    return tokenizer


def save_tokenizer(tokenizer: Any, variation: Variation, folder: Path) -> None:
    if variation.used:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer(["one", "one two three"], truncation=True, max_length=2, padding=True)
    tokenizer.save_pretrained(folder, **variation.tokenizer_save)
    if variation.resaved:
        read_back(folder).save_pretrained(folder)
    model = folder / "tokenizer.model"
    if variation.tokenizer_model == "beside" and "trained" not in variation.tokenizer:
        shutil.copyfile(DEMO / "tokenizer.model", model)
    elif variation.tokenizer_model == "removed" and (folder / "tokenizer.json").exists():
        model.unlink(missing_ok=True)


def read_back(folder: Path) -> Any:
    """The tokenizer as transformers reads it from a folder."""
    options: dict[str, Any] = {}
    if transformers.__version__.startswith("4.") and not (folder / "tokenizer.model").exists():
        # There tokenizer.model is wanted, and not used, wherever tokenizer_config.json speaks of a space in front.
        options["add_prefix_space"] = None
    return transformers.AutoTokenizer.from_pretrained(folder, **options)


def judge(tokenizer: Any, variation: Variation) -> Judged:
    """What a tokenizer of transformers makes of texts, of ids, and of conversations.

    Special strings in what people write are text: by design, and in transformers with split_special_tokens. Special are
    also the tags of an answer, whatever a tokenizer says of them, and what tokenizer_config.json names under keys of
    its own, as it is to transformers 5.
    """
    rng = random.Random(variation.seed)
    texts = list(TEXTS)
    for token in variation.added[:4]:
        texts += [form.replace("{}", token["content"]) for form in rng.sample(AROUND, 3)]
    chats = list(_chats(tokenizer, variation)) if tokenizer.chat_template is not None else []
    tags = [token["content"] for token in variation.added if token["content"] in TAGS]
    named = [value for key, value in tokenizer.init_kwargs.items() if key in NAMED]
    tokenizer.add_tokens([*tags, *named], special_tokens=True)
    encoded = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in texts]
    matched = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False) for text in texts]
    blurred = _blurred(tokenizer)
    decoded = [ids for ids in matched if blurred.isdisjoint(ids)]
    return Judged(
        texts=list(zip(texts, encoded, strict=True)),
        decoded=[(ids, tokenizer.decode(ids, skip_special_tokens=True)) for ids in decoded],
        tokens=max(tokenizer.get_vocab().values()) + 1,
        chats=chats,
    )


def _blurred(tokenizer: Any) -> set[int]:
    """Tokens that are found after normalizing, which `tokenizers` before 0.23 decode without their space in front."""
    if tokenizers.__version__ >= "0.23":
        return set()
    return {id for id, token in tokenizer.added_tokens_decoder.items() if token.normalized}


def _chats(tokenizer: Any, variation: Variation) -> Iterator[tuple[list[dict[str, str]], list[int]]]:
    """Conversations and their ids; of the added tokens one that is text, and has no special one in it, is said."""
    apart = [token["content"] for token in variation.added if token.get("special") or token["content"] in TAGS]
    words = [token["content"] for token in variation.added if not any(name in token["content"] for name in apart)]
    for messages in [*CHATS, *([{"role": "user", "content": f"see {word} here"}] for word in words[:1])]:
        ids = tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            tokenizer_kwargs={"split_special_tokens": False},
        )
        yield messages, ids


def _corpus() -> Iterator[str]:
    for text in TEXTS:
        yield from [text.replace("</s> <s> <unk> ", "")] * 3


def _metaspace() -> Tokenizer:
    """Byte-fallback BPE over spaces spelt as U+2581: ERNIE's kind."""
    learning = Tokenizer(models.BPE(unk_token="<unk>"))
    learning.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
    learning.train_from_iterator(_corpus(), trainers.BpeTrainer(vocab_size=300, show_progress=False))
    vocab = learning.get_vocab()
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(vocab, key=vocab.__getitem__),
    ]
    merges = [tuple(merge) for merge in json.loads(learning.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE(
        {name: id for id, name in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    ))  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _bytes() -> Tokenizer:
    """GPT-2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    """T5's kind."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


TRAINED: Final = {"trained metaspace": _metaspace, "trained bytes": _bytes, "trained unigram": _unigram}
