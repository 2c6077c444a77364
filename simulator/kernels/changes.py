"""Compiled loops over feature maps that are compared with what is remembered of them."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def changed_places(values, reference, threshold, found):
    """Mark the places at which a channel differs from its reference by more than a threshold.

    Args:
        values: `(channels, places)` float32; each channel's lie together.
        reference: likewise.
        threshold: float32, at least 0.
        found: out, `(places,)` bool.
    """
    found[:] = False
    for channel in range(values.shape[0]):
        own, before = values[channel], reference[channel]
        for place in range(len(found)):
            found[place] |= np.abs(own[place] - before[place]) > threshold


@njit(cache=True, nogil=True)
def take_changed(values, changed, reference):
    """Write the values of changed places into their reference.

    Args:
        values: `(channels, places)` float32.
        changed: `(places,)` bool.
        reference: written, as `values`.
    """
    for channel in range(values.shape[0]):
        own, before = values[channel], reference[channel]
        for place in range(len(changed)):
            if changed[place]:
                before[place] = own[place]


@njit(cache=True, nogil=True)
def gather_patches(values, places, found):
    """The patches of a feature map at some outputs.

    Args:
        values: `(channels, places)` float32.
        places: `(taps, outputs)` int64, the place that each tap reads; -1 for padding.
        found: out, `(channels x taps, outputs)` float32.
    """
    taps, outputs = places.shape
    for channel in range(values.shape[0]):
        own = values[channel]
        for tap in range(taps):
            row, read = found[channel * taps + tap], places[tap]
            for output in range(outputs):
                place = read[output]
                row[output] = own[place] if place >= 0 else np.float32(0)
