"""Which frames of a video are taken: Baidu's rule."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Final

from ernie_rt.display import shown
from ernie_rt.errors import OptionError

FPS: Final = 2.0
"""Frames taken from a second."""
MIN_FRAMES: Final = 16
MAX_FRAMES: Final = 180
HIGHEST_FPS: Final = 240
HIGHEST_MAX_FRAMES: Final = 720
"""Of a video up to 721 frames are taken then, and the last of them twice."""


def chosen_frames(
    count: int, rate: float, *, fps: float = FPS, min_frames: int = MIN_FRAMES, max_frames: int = MAX_FRAMES
) -> list[int]:
    """The indices, ascending, of the frames to take from `count` of them at `rate` a second.

    Those nearest to every 1 / `fps` seconds where `min_frames` to `max_frames` of these steps fit into the video;
    otherwise that many, or all that there are, evenly from the first on. (transformers takes up to 180 by default,
    however short a video is.)

    The first one is at 0, so there is one more of them than steps where a frame comes behind the last step. At most
    they are `max_frames` + 1, by default of a video between 90 and 90.5 seconds: Baidu's code cuts none off, and the
    models were trained with it.
    """
    duration = count / rate
    wanted = int(duration * fps)
    if min_frames <= wanted <= max_frames:
        step, chosen, index = 1 / fps, [], 0
        while index * step < duration:
            if (frame := round(index * step * rate)) < count:
                chosen.append(frame)
            index += 1
        return chosen
    wanted = min(min_frames if wanted < min_frames else max_frames, count)
    return [int(index * (count / wanted)) for index in range(wanted)]


def check_rate(fps: float, min_frames: int, max_frames: int) -> None:
    """OptionError where no frames can be chosen so."""
    if not isinstance(fps, Real) or not 0 < fps <= HIGHEST_FPS:
        raise OptionError(
            "an impossible number of frames a second",
            where="fps",
            expected=f"more than 0, at most {HIGHEST_FPS}",
            found=shown(fps),
        )
    for name, value in (("min_frames", min_frames), ("max_frames", max_frames)):
        if not isinstance(value, Integral) or not 1 <= value <= HIGHEST_MAX_FRAMES:
            raise OptionError(
                "an impossible number of frames",
                where=name,
                expected=f"1 to {HIGHEST_MAX_FRAMES}",
                found=shown(value),
            )
