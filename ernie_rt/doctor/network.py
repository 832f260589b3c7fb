"""Variables that say how models are fetched: never a fault, and often a surprise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from ernie_rt.contract.findings import Finding

TRUE: Final = ("1", "on", "yes", "true")


def network() -> Iterator[Finding]:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() in TRUE:
            seen = f"{name}={os.environ[name]}"
            yield Finding("remark", seen, "models that are not in the cache cannot be fetched", f"unset {name}")
    if endpoint := os.environ.get("HF_ENDPOINT"):
        yield Finding("remark", f"HF_ENDPOINT={endpoint}", "models are fetched from there", "unset HF_ENDPOINT")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        if os.environ.get(name):  # which may hold a password
            yield Finding("remark", f"{name} is set", "models are fetched through a proxy", f"unset {name}")
            return
