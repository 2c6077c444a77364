"""Light random changes to training images."""

from __future__ import annotations

import torch

AUGMENTATIONS = ("none", "shift", "shift_flip")
SHIFT_PIXELS = 4  # as TF-slim's CifarNet preprocessing pads


def augmented(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Return the images, each shifted (and mirrored) at random.

    Args:
        images: `(n, 3, h, w)` float32 tensor on the CPU.
        kind: 'none'; 'shift', by up to 4 pixels each way with edge pixels repeated; or
            'shift_flip', which also mirrors left and right with probability one half.
        generator: source of the randomness.

    Returns:
        `(n, 3, h, w)` float32 tensor.
    """
    match kind:
        case "none":
            return images
        case "shift":
            return _shifted(images, generator)
        case "shift_flip":
            mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
            return _shifted(torch.where(mirrored, images.flip(3), images), generator)
        case _:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {kind!r}")


def _shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    n, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (SHIFT_PIXELS,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * SHIFT_PIXELS + 1, (2, n, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    return padded[
        torch.arange(n)[:, None, None, None],
        torch.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
