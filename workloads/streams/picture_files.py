"""Decoding picture files: the header first, and never more than was allowed."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workloads.errors import told
from workloads.reading import regular_file
from workloads.streams.image_set import StreamError

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".tiff")
MOST_PIXELS = 2**26  # 8192 x 8192

# Of those that the imaging library reads, none that runs another program, as PostScript does.
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
# Numbers of more than 8 bits, which a conversion would cut off without a word.
_DEEP_MODES = ("I", "F")
_limit_lock = threading.Lock()


def picture(
    source: Path | bytes,
    where: str,
    *,
    check_size: Callable[[int, int], None] | None = None,
    mode: str | None = None,
    upright: bool = False,
) -> np.ndarray:
    """Decode one picture.

    Args:
        source: a file, or its content.
        where: what messages call it.
        check_size: called with the height and width that the header tells, before anything is
            decoded; raises a StreamError if they are wrong.
        mode: of the imaging library that it is converted to, such as "RGB"; by default its own, but
            a palette's colours, without transparency, and white as 255.
        upright: turned as its camera noted.

    Returns:
        `(height, width)` or `(height, width, channels)`, 8 or 16 bits unsigned as in the file.

    Raises:
        StreamError: for what is no picture, damaged, moving, too large, or, if it is to be
            converted, of more than 8 bits.
    """
    if isinstance(source, Path):
        regular_file(source, "an image", StreamError)
    with _opened(source, where) as image:
        if check_size is not None:
            check_size(image.height, image.width)
        if image.width * image.height > MOST_PIXELS:
            raise StreamError(
                f"{where} must have at most {MOST_PIXELS} pixels, got {image.width}x{image.height}"
                "; make it smaller"
            )
        # A photograph may hold a second, small one beside it (MPO).
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise StreamError(
                f"{where} must be a single picture, got {getattr(image, 'n_frames', 0)} in one "
                "file; save them as a video or one by one"
            )
        if mode is not None and image.mode.startswith(_DEEP_MODES):
            raise StreamError(
                f"{where} must have 8 bits per channel, got the mode {image.mode!r}; convert it"
            )
        return _pixels(image, mode, upright=upright)


def _pixels(image: Image.Image, mode: str | None, *, upright: bool) -> np.ndarray:
    from PIL import ImageOps

    if upright:
        image = ImageOps.exif_transpose(image)
    wanted = mode or {"P": "RGB", "RGBA": "RGB", "1": "L"}.get(image.mode)
    return np.array(image if wanted is None else image.convert(wanted))


@contextmanager
def _opened(source: Path | bytes, where: str) -> Iterator[Image.Image]:
    """An image whose header was read; errors and warnings of the library become one error."""
    from PIL import Image  # about 0.1 s to import

    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of huge and of half-damaged pictures
        try:
            with _without_limit():
                image = Image.open(
                    io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats
                )
            with image:
                yield image
        except StreamError:
            raise
        except Exception as error:  # damage raises many kinds of errors
            why = (
                "no picture of a known format"
                if isinstance(error, Image.UnidentifiedImageError)
                else told(error)
            )
            must = "must be" if isinstance(source, Path) else "is not"
            raise StreamError(
                f"{where} {must} a readable image, got {why}; copy it again, or take it away"
            ) from error


@contextmanager
def _without_limit() -> Iterator[None]:
    """Lets a header be read however large the picture: it is judged here, not by the library."""
    from PIL import Image

    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
