"""What goes wrong with a request, as HTTP says it and each protocol spells it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ernie_rt.errors import (
    CapacityError,
    ContextError,
    ErnieRtError,
    JsonError,
    OptionError,
    OverloadError,
    PromptError,
    TemplateError,
)
from ernie_rt.generation.options import GenerateOptions

BROKEN: Final = "The server failed at this request; its log says more under the request's id"
OVERLOADS: Final = {"full": (429, "queue_full"), "expired": (503, "queue_timeout"), "draining": (503, "draining")}


@dataclass(slots=True)
class Fault(Exception):
    """Why a request is not answered: an HTTP status, and what its client is told.

    `param` names the field that is wrong, `code` is for programs, `headers` go with the answer.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Shape = Callable[[Fault], dict[str, Any]]
"""Spells a fault as the body of a protocol's errors."""


def fault_of(error: BaseException, prompt: str | None = None) -> Fault:
    """The fault that an error is to whoever made the request, whose prompt is in the field `prompt`.

    What a caller can put right is said in full. All else is the server's own and stays in its log: its text may name
    files.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, OverloadError):
        status, code = OVERLOADS[error.reason]
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        if error.reason == "draining":
            headers["Connection"] = "close"
        return Fault(status, str(error), code=code, headers=headers)
    if isinstance(error, ContextError):
        return Fault(400, str(error), code="context_length_exceeded")
    if isinstance(error, OptionError | PromptError | JsonError | CapacityError):
        return Fault(400, str(error), param=_param(error, prompt))
    if isinstance(error, TemplateError):  # `where` is a path
        return Fault(400, error.what if error.found is None else f"{error.what}; found {error.found}", prompt)
    return Fault(500, BROKEN, code="internal_error")


def openai_error(fault: Fault) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error",
             505: "invalid_request_error"}  # fmt: skip
    kind = kinds.get(fault.status, "service_unavailable" if fault.status > 500 else "invalid_request_error")
    return {"error": {"message": fault.message, "type": kind, "param": fault.param, "code": fault.code}}


def _param(error: ErnieRtError, prompt: str | None) -> str | None:
    """The field that an error is about: of an OptionError the option that it begins with, as many do."""
    if isinstance(error, PromptError):
        return "tools" if (error.where or "").startswith("tool") else prompt
    name = error.what.partition(" ")[0]
    return name if isinstance(error, OptionError) and name in GenerateOptions.__annotations__ else None
