"""The images that a model took, as pictures."""

import numpy as np

from accelerators import ConfigError
from workloads.traces.trace import WorkloadTrace


def image_inputs(trace: WorkloadTrace) -> np.ndarray | None:
    """The `(images, 1 or 3, height, width)` inputs of the model; `None` where it has no such."""
    for array in trace.inputs or ():
        if array.ndim == 4 and array.shape[1] in (1, 3) and len(array) == trace.images:
            return array
    return None


def required_images(trace: WorkloadTrace) -> np.ndarray:
    """The same.

    Raises:
        ConfigError: the trace holds none.
    """
    images = image_inputs(trace)
    if images is None:
        found = [array.shape for array in trace.inputs] if trace.inputs else "no inputs"
        raise ConfigError(
            "trace must hold the images it was captured on, (images, 3, height, width), got "
            f"{found}; capture a model of images"
        )
    return images


def frame_picture(trace: WorkloadTrace, image: int) -> np.ndarray:
    """An input as a picture, its darkest value black and its brightest white.

    Returns:
        `(height, width, 3)` uint8.

    Raises:
        ConfigError: the trace holds no images, or not this one.
    """
    images = required_images(trace)
    if not 0 <= image < trace.images:
        raise ConfigError(
            f"image must be 0 to {trace.images - 1} in this trace, got {image}; use one of these"
        )
    pixels = images[image].astype(np.float64)
    span = float(pixels.max() - pixels.min()) or 1.0
    stretched = np.rint(255 * (pixels - pixels.min()) / span).astype(np.uint8)
    return np.broadcast_to(stretched.transpose(1, 2, 0), (*stretched.shape[1:], 3))
