"""Scanned handwritten digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

import numpy as np
import torch

from workloads.streams.image_set import ImageSet, check_split

TEST_IMAGES = 360
SPLIT_SEED = 0


def digits(split: str = "train") -> ImageSet:
    """Return the 1,797 scanned digits of scikit-learn as CifarNet-sized colour images.

    The 8x8 scans (0 to 16 grey levels) are resized to 32x32 bilinearly, scaled to -1..1 and
    repeated over three channels. The split is deterministic, stratified by class and shuffled:
    1,437 images to train on and 360 to test on.

    The three channels are equal and the images smooth, so rows of the first layer are far more
    alike than in photographs: good for trying a flow, not for claims about similarity.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998),
    the test part, as shipped by `sklearn.datasets.load_digits`. Writers are shared by the two
    splits.

    Args:
        split: 'train' or 'test'.

    Returns:
        `(1437 or 360, 3, 32, 32)` images with labels 0 to 9.
    """
    check_split(split)
    # Imported here because scikit-learn takes about a second to import.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans = load_digits()
    train, test = train_test_split(
        np.arange(len(scans.target)),
        test_size=TEST_IMAGES,
        stratify=scans.target,
        random_state=SPLIT_SEED,
    )
    chosen = train if split == "train" else test
    grey = torch.from_numpy(scans.images[chosen].astype(np.float32))[:, None]
    resized = torch.nn.functional.interpolate(
        grey, size=(32, 32), mode="bilinear", align_corners=False
    )
    return ImageSet(
        images=(resized / 8 - 1).repeat(1, 3, 1, 1),
        labels=torch.from_numpy(scans.target[chosen].astype(np.int64)),
        classes=tuple(str(digit) for digit in range(10)),
        source=f"digits/{split} (scikit-learn load_digits, 8x8 resized to 32x32)",
    )
