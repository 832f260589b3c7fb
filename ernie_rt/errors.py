"""The one exception tree.

ErnieRtError                     exit code 1
├── InputError                   exit code 2: what the caller gave cannot be used
│   ├── OptionError              an argument or option
│   ├── PromptError              a prompt that is empty or malformed
│   │   ├── ContextError         a prompt that is, with its answer, longer than the context
│   │   └── MediaError           a picture or video that is broken, foreign, or over a limit
│   ├── ModelNotFoundError       a model reference that leads nowhere
│   ├── UnsafePathError          a path that leaves its folder, or is no regular file
│   ├── FileFormatError          a file that is not what its name says, truncated, or too large
│   │   ├── JsonError            JSON that is malformed, hostile or over a limit
│   │   └── UnsafeCheckpointError  a pickle: never opened
│   ├── ConfigError              a config field that is impossible or not supported
│   ├── CheckpointError          tensors missing, left over, of a wrong shape or dtype; shards that disagree
│   ├── IntegrityError           a folder that is not what was written, or leads its reader astray
│   ├── TokenizerError           tokenizer files that are absent, broken, or disagree with the config
│   └── TemplateError            a chat template that is broken, or does what a template may not
│       └── TemplateLimitError   a chat template that takes more time, memory or output than it may
├── GraphError                   a graph that breaks the rules of its ops
├── LoweringError                a graph that a backend cannot run, with its reasons
├── BackendError                 a backend that is not installed, lacks what was asked for, or failed
├── PluginError                  a plugin that is broken or speaks another API
├── ConformanceError             a backend that fails a check of the suite
├── CapacityError                a request or model that exceeds the limits it was given
├── OverloadError                a request that was turned away: the queue is full, it waited too long, or serving ends
├── ForkError                    a model used in a process that was forked after it was loaded
└── WriteError                   an output that could not be written; nothing half-written stays
"""

from __future__ import annotations

from typing import Final, Literal

LONGEST_PART: Final = 2000
"""Characters of each part of an error."""


class ErnieRtError(Exception):
    """An error with everything a person needs to act: what, where, expected, found, what to do next.

    `what` is one sentence without a full stop; the other parts are optional. `str(error)` joins them on one line.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = _shortened(what)
        self.where = None if where is None else _shortened(where)
        self.expected = None if expected is None else _shortened(_printed(expected))
        self.found = None if found is None else _shortened(_printed(found))
        self.hint = hint
        super().__init__(self.what)

    def __str__(self) -> str:
        text = self.what if self.where is None else f"{self.where}: {self.what}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            text += f"; found {self.found}"
        if self.hint is not None:
            text += f". {self.hint}"
        return text


def _printed(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"a value of type {type(value).__name__} that is too long to print"


def _shortened(text: str) -> str:
    """A text that somebody reads, whoever wrote what it repeats."""
    return text if len(text) <= LONGEST_PART else f"{text[:LONGEST_PART]}… ({len(text):,} characters)"


class InputError(ErnieRtError):
    """What the caller gave cannot be used."""

    exit_code = 2


class OptionError(InputError):
    """An argument or option has an impossible value."""


class PromptError(InputError):
    """A prompt is empty or malformed."""


class ContextError(PromptError):
    """A prompt and its answer are longer than the context."""


class MediaError(PromptError):
    """A picture or video is broken, of a format that is not read, or exceeds a limit."""


class ModelNotFoundError(InputError):
    """A model reference leads nowhere."""


class UnsafePathError(InputError):
    """A path leaves its folder, or is no regular file."""


class FileFormatError(InputError):
    """A file is not what its name says, is truncated, or exceeds a size limit."""


class JsonError(FileFormatError):
    """JSON is malformed, hostile, or exceeds a limit."""


class UnsafeCheckpointError(FileFormatError):
    """A checkpoint is a pickle; ernie-rt never opens one."""


class ConfigError(InputError):
    """A config field is impossible or not supported."""


class CheckpointError(InputError):
    """Tensors are missing, left over, or of a wrong shape or dtype, or shards disagree with their index."""


class IntegrityError(InputError):
    """An exported or quantised folder is not what was written, or would lead its reader elsewhere."""


class TokenizerError(InputError):
    """Tokenizer files are absent, broken, or disagree with the config."""


class TemplateError(InputError):
    """A chat template is broken, refuses the messages, or does what a template may not."""


class TemplateLimitError(TemplateError):
    """A chat template takes more time, memory or output than it may."""


class GraphError(ErnieRtError):
    """A graph breaks the rules of its ops."""


class LoweringError(ErnieRtError):
    """A backend cannot run a graph."""


class BackendError(ErnieRtError):
    """A backend is not installed, lacks what was asked for, or failed."""


class PluginError(ErnieRtError):
    """A plugin is broken or speaks another API."""


class ConformanceError(ErnieRtError):
    """A backend fails a check of the suite."""


class CapacityError(ErnieRtError):
    """A request or model exceeds the limits it was given."""


class OverloadError(ErnieRtError):
    """A request is turned away, and nothing was computed for it.

    `reason` is "full" where too many wait, "expired" where it waited too long, "draining" where serving comes to its
    end. `retry_after` is in how many seconds it may go better.
    """

    def __init__(
        self, what: str, reason: Literal["full", "expired", "draining"] = "full", retry_after: float = 1.0
    ) -> None:
        super().__init__(what, hint=f"Try again in {retry_after:.0f} s, or elsewhere")
        self.reason = reason
        self.retry_after = retry_after


class ForkError(ErnieRtError):
    """A model is used in a process that was forked after it was loaded."""


class WriteError(ErnieRtError):
    """An output could not be written; nothing half-written stays."""
