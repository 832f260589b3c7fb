"""The time of a video's frame in words, as ERNIE was trained to read it."""

from __future__ import annotations


def timestamp(seconds: float) -> str:
    """`time: 00:01:02.50`; hundredths that round up to a minute stay `60.00`, as in Baidu's code."""
    return f"time: {int(seconds // 3600):02d}:{int(seconds % 3600 // 60):02d}:{seconds % 60:05.02f}"
