"""A stranger's video in the child process that decodes it: its index first, then the frames that are asked for."""

from __future__ import annotations

import io
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
from PIL import Image

from ernie_rt.vision.decoder import Refused, to_size
from ernie_rt.vision.drawing import draw_timestamp
from ernie_rt.vision.limits import MAX_SECONDS

CODECS: Final = ("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mjpeg")
MAX_NATIVE: Final = 4096 * 2304
MAX_SIDE: Final = 4096
MAX_FRAMES: Final = MAX_SECONDS * 120
OPTIONS: Final = {
    "protocol_whitelist": "none",  # nothing else is opened, wherever it may lie
    "codec_whitelist": ",".join(CODECS),
    "max_streams": "64",
}
AGREES: Final = 0.05
"""By how much of it the rate that a file claims may differ from the one that its frames' times give."""
NEVER: Final = 1 << 63
UPRIGHT: Final = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


class Film:
    """The first track of pictures in a container of an allowed format.

    How many frames there are, and when, is what its packets say: claims are believed nowhere. Frames are decoded from
    the last key frame before them, in their order.
    """

    def __init__(self, asked: Mapping[str, Any], data: bytes) -> None:
        path = asked.get("path")
        self._file: BinaryIO = io.BytesIO(data) if path is None else Path(path).open("rb")  # noqa: SIM115  to the end
        self._format: str = asked["format"]
        self._threads: int = asked["threads"]
        self._wanted: frozenset[int] = frozenset()
        self._open()
        self._times, self._keys = self._index()
        self._open()  # not every container can be sought in, not even for its beginning

    def about(self) -> dict[str, Any]:
        return {"frames": len(self._times), "fps": self._fps(), "size": self._image(self._frame(self._times[0])).size}

    def pixels(self, asked: Mapping[str, Any]) -> tuple[tuple[int, int], bytes]:
        """The frame of this `index`, ascending from request to request, with a text in its corner.

        It is one of those that are `chosen`: of the others only those are decoded that something refers to.
        """
        width, height = asked["size"]
        if not self._wanted:
            self._wanted = frozenset(self._times[index] for index in asked["chosen"])
        image = self._image(self._frame(self._times[asked["index"]]))
        draw_timestamp(image, asked["text"])
        return (width, height), to_size(image, (width, height))

    def _open(self) -> None:
        self._file.seek(0)
        container = av.open(self._file, "r", format=self._format, options=OPTIONS, metadata_errors="replace")
        stream = next((each for each in container.streams.video if not _cover(each)), None)
        if stream is None:
            raise Refused("no track of pictures")
        codec = stream.codec_context
        if codec is None or codec.name not in CODECS:
            raise Refused(f"the codec {getattr(codec, 'name', 'of nobody')}, none of {', '.join(CODECS)}")
        _check_size(codec.width, codec.height)
        codec.options = {"max_pixels": str(MAX_NATIVE)}
        codec.thread_type = "AUTO"
        codec.thread_count = self._threads
        self._container, self._stream = container, stream
        self._frames = self._decoded()
        self._shown: av.VideoFrame | None = None
        self._ahead: av.VideoFrame | None = None

    def _index(self) -> tuple[array[int], array[int]]:
        """The times of all frames, and of the key frames, ascending, in units of the stream."""
        times, keys = array("q"), array("q")
        for packet in self._container.demux(self._stream):
            time = _time(packet)
            if time == NEVER or packet.is_discard:
                continue
            times.append(time)
            if packet.is_keyframe:
                keys.append(time)
            if len(times) > MAX_FRAMES:
                raise Refused(f"more than {MAX_FRAMES} frames")
        if not times:
            raise Refused("no frames")
        return array("q", sorted(times)), array("q", sorted(keys))

    def _fps(self) -> float:
        """Frames a second on average."""
        base = self._stream.time_base
        seconds = float((self._times[-1] - self._times[0]) * base) if base else 0.0
        claimed = float(self._stream.average_rate or 0)
        if seconds <= 0:
            fps = claimed if 0 < claimed < 1000 else 1.0
        else:
            fps = (len(self._times) - 1) / seconds
            if abs(claimed - fps) <= AGREES * fps:  # the same, without what times in whole units are rounded by
                fps = claimed
        if len(self._times) / fps > MAX_SECONDS:
            raise Refused(f"more than {MAX_SECONDS // 3600} hours")
        return fps

    def _frame(self, wanted: int) -> av.VideoFrame:
        """What is shown at a time: the last frame that does not come after it."""
        key = bisect_right(self._keys, wanted) - 1
        reached = self._ahead or self._shown
        if key >= 0 and reached is not None and self._keys[key] > _time(reached):
            self._seek(self._keys[key])
        while self._shown is None or _time(self._shown) < wanted:
            if self._ahead is None:
                self._ahead = next(self._frames, None)
            if self._ahead is None or (self._shown is not None and _time(self._ahead) > wanted):
                break
            self._shown, self._ahead = self._ahead, None
        if self._shown is None:
            raise Refused("no frame that can be decoded")
        return self._shown

    def _seek(self, time: int) -> None:
        try:
            self._container.seek(time, stream=self._stream)
        except av.FFmpegError:  # decode what lies between
            return
        self._frames = self._decoded()
        self._shown = self._ahead = None

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """The frames from here on; what is broken is left out, as players do."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                skipped = self._wanted and _time(packet) not in self._wanted
                self._stream.codec_context.skip_frame = "NONREF" if skipped else "DEFAULT"
                frames = packet.decode()
            except StopIteration:
                return
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                yield frame

    @staticmethod
    def _image(frame: av.VideoFrame) -> Image.Image:
        _check_size(frame.width, frame.height)
        image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
        turn = UPRIGHT.get(frame.rotation)
        return image if turn is None else image.transpose(turn)


def samples() -> Iterator[tuple[dict[str, Any], bytes]]:
    """A small video, and how it is asked for."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in (av.VideoFrame(32, 32, "yuv420p"), None):
            container.mux(stream.encode(frame))
    yield {"format": "matroska", "threads": 1}, file.getvalue()


def _time(part: av.Packet[Any] | av.VideoFrame) -> int:
    """When it is shown; what does not say follows all others."""
    time = part.dts if part.pts is None else part.pts
    return NEVER if time is None else time


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_NATIVE or max(width, height) > MAX_SIDE:
        raise Refused(f"frames of {width}x{height}, more than {MAX_NATIVE} pixels or {MAX_SIDE} on a side")


def _cover(stream: av.VideoStream) -> bool:
    """Whether it is the picture on the cover of a piece of music."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
