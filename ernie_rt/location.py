"""Where a model is, and what its folder says about it before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from ernie_rt.errors import ErnieRtError, OptionError, TokenizerError
from ernie_rt.generation.defaults import Defaults, read_defaults
from ernie_rt.modeling.config import ModelConfig, read_config
from ernie_rt.modeling.vision_language import read_preprocessor
from ernie_rt.text.chat import ChatTemplate
from ernie_rt.text.media_reader import MediaReader
from ernie_rt.text.tokenizer import Tokenizer
from ernie_rt.text.vocabulary import has_tokenizer
from ernie_rt.weights.checkpoint import has_weights
from ernie_rt.weights.hub import model_name, resolve
from ernie_rt.weights.opening import SOURCES, Sources, open_weights
from ernie_rt.weights.source import StoredSource

TEXT_ALONE: Final = "a vision-language model of which the text alone is run: it takes no pictures and no videos"


@dataclass(frozen=True)
class Located:
    """A model on disk: its folder and its config, read and checked; no weights yet. Of a family alone, no folder.

    What else the folder says is read when it is first asked for, and once. `sources` are the kinds of weights that it
    may have.
    """

    config: ModelConfig
    folder: Path | None = None
    sources: Sources = SOURCES

    @property
    def name(self) -> str:
        """What people call it: its hub id, its folder's name or, of a family alone, the kind of model."""
        name = "" if self.folder is None else model_name(self.folder)  # that of / is empty
        return name or self.config.model_type

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer; TokenizerError when there is none, what `weights` raises when both lack."""
        if self.folder is None:
            raise TokenizerError("a model without a folder has no tokenizer", hint="Use generate_ids, or load a folder")
        if not has_tokenizer(self.folder) and not has_weights(self.folder):
            self.weights().close()  # whose error says what the folder is
        return Tokenizer.load(self.folder, self.config)

    @cached_property
    def known_ids(self) -> int | None:
        """How many ids may be chosen: those that the tokenizer has, of a model whose text alone is run those of text.
        None: all, there is no tokenizer.

        A model that sees may name places in pictures, whose ids come behind those that stand for parts of them.
        """
        most = self.config.vocab_size if self.config.sees else self.config.text_vocab_size
        try:
            return min(self.tokenizer.vocab_size, most)
        except ErnieRtError:
            return most if most < self.config.vocab_size else None

    @property
    def text_alone(self) -> Located:
        """The same model without pictures; itself where it takes none."""
        return self if self.config.sees is None else replace(self, config=self.config.text_alone)

    @property
    def notes(self) -> tuple[str, ...]:
        """That only the text of a model is run; where the files of the tokenizer disagree, and which one was believed,
        if there is one."""
        notes = () if self.config.vision is self.config.sees else (TEXT_ALONE,)
        try:
            return (*notes, *self.tokenizer.notes)
        except ErnieRtError:
            return notes

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template; ERNIE's own for a vision-language model that comes without one. None when there is none,
        as with base models."""
        default = None if self.config.vision is None else "ernie-vl"
        return None if self.folder is None else ChatTemplate.load(self.folder, default)

    def reader(self, device: str, max_patches: int | None = None) -> MediaReader | None:
        """What reads pictures and videos for it where it runs on such a device, "cpu" or another, and a step takes in
        at most so many patches (None: as many as there are); None where it reads text alone.

        ConfigError where its preprocessor_config.json asks for what is not done here.
        """
        sees = self.config.sees
        if sees is None or self.folder is None:
            return None
        return MediaReader(sees, read_preprocessor(self.folder), on_cpu=device == "cpu", max_patches=max_patches)

    @cached_property
    def defaults(self) -> Defaults:
        """What the checkpoint's generation_config.json asks for."""
        return Defaults() if self.folder is None else read_defaults(self.folder, self.config)

    def weights(self, *, reread: bool = False) -> StoredSource:
        """The weights, opened for reading: their headers are checked, and the caller closes them.

        To `reread` is to believe no remembered digest of their files: for who writes what it reads elsewhere.
        """
        if self.folder is None:
            raise OptionError("a model without a folder needs `weights`")
        return open_weights(self.folder, self.config, self.sources, reread=reread)


def locate(ref: str | Path, sources: Sources = SOURCES) -> Located:
    """Find a model by folder, known name or hub id, and read its config; the hub's are downloaded when first wanted.

    `sources` are the kinds of weights that its folder may have.

    Raises ModelNotFoundError, WriteError when the download cannot be kept, and for the config ConfigError,
    FileFormatError or UnsafePathError.
    """
    folder = resolve(str(ref))
    return Located(read_config(folder), folder, sources)
