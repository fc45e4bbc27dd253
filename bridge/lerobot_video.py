"""Camera videos of robot episodes: H.264 in mp4, written and read with PyAV.

4:4:4 colour, because half-resolution colour blurs a 3-pixel dot away: on a 128-px frame with 1.6-px dots, PSNR over the
dots is 14 dB with 4:2:0 at any quality and 30 dB with 4:4:4 at crf 10, for the same kilobytes.
"""

import fractions
import pathlib
from collections.abc import Iterator

import av
import numpy as np

from bridge.lerobot_files import DatasetError

PIXEL_FORMAT = "yuv444p"
OPTIONS = {"crf": "10", "preset": "veryfast", "g": "10", "bf": "0", "threads": "1"}
SEEK_AFTER = 64  # frames: nearer starts are reached by decoding from the beginning


def encode(path: pathlib.Path, frames: np.ndarray, *, fps: float) -> None:
    """Write uint8 [n, h, w, 3] as an mp4; frame i is shown at i / fps seconds."""
    rate = fractions.Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXEL_FORMAT
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=PIXEL_FORMAT, threads=1)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def decode(path: pathlib.Path, positions: np.ndarray, *, fps: float, start: float = 0.0) -> np.ndarray:
    """Frames uint8 [n, h, w, 3] at these positions (any order, repeats allowed) of the episode that begins at `start`.

    start: seconds into the file (0 where a file holds one episode). Positions count frames from there.
    """
    wanted = set(np.asarray(positions).tolist())
    if not wanted:
        raise DatasetError(f"{path}: no frames asked for; give at least one position")
    found: dict[int, np.ndarray] = {}
    for index, frame in _frames(path, fps=fps, start=start, first=min(wanted)):
        if index in wanted:
            found[index] = frame.to_ndarray(format="rgb24")
        if index >= max(wanted):
            break
    if missing := sorted(wanted - set(found)):
        raise DatasetError(
            f"{path}: frame {missing[0]} of the episode at {start:g} s cannot be decoded (truncated, or too few "
            "frames): fetch the video again"
        )
    return np.stack([found[index] for index in np.asarray(positions).tolist()])


def count(path: pathlib.Path, *, fps: float, start: float = 0.0, most: int | None = None) -> tuple[int, int, int]:
    """(decodable frames from `start` on, height, width); every one is decoded, at most `most`."""
    number, height, width = 0, 0, 0
    for index, frame in _frames(path, fps=fps, start=start, first=0):
        if index < 0:
            continue
        if most is not None and index >= most:
            break
        number, height, width = number + 1, frame.height, frame.width
    return number, height, width


def packets(path: pathlib.Path) -> int:
    """Frames that the file holds, without decoding them."""
    try:
        with av.open(str(path)) as container:
            return sum(packet.size > 0 for packet in container.demux(_stream(path, container)))
    except av.FFmpegError as error:
        raise _broken(path, error) from error


def _frames(path: pathlib.Path, *, fps: float, start: float, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames from position `first` (or a little earlier) on, with their positions by presentation time."""
    try:
        with av.open(str(path)) as container:
            stream = _stream(path, container)
            stream.codec_context.options = {"err_detect": "explode"}
            origin = stream.start_time or 0
            if start * fps + first > SEEK_AFTER:
                seconds = fractions.Fraction(start + first / fps) - fractions.Fraction(1, 2) / fractions.Fraction(fps)
                container.seek(origin + int(seconds / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None:
                    raise DatasetError(f"{path}: a frame has no time stamp: write the video again with time stamps")
                yield round((float((frame.pts - origin) * stream.time_base) - start) * fps), frame
    except av.FFmpegError as error:
        raise _broken(path, error) from error


def _stream(path: pathlib.Path, container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise DatasetError(f"{path} holds no video stream: fetch it again")
    return container.streams.video[0]


def _broken(path: pathlib.Path, error: Exception) -> DatasetError:
    if isinstance(error, FileNotFoundError):
        return DatasetError(f"{path} is missing, though the dataset's metadata names it: fetch it again")
    return DatasetError(f"{path} cannot be decoded ({error}): truncated or damaged; fetch the video again")
