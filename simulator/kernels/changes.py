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
def gather_patches(values, taps, starts, lengths, stride, found):
    """The patches of a feature map at some outputs, whose places lie in runs.

    Args:
        values: `(channels, places)` float32, padded.
        taps: `(t,)` int64, places from an output's first one to that of each tap.
        starts: `(runs,)` int64, the first place of each run's first output.
        lengths: `(runs,)` int64, outputs in each, `stride` places from one to the next.
        stride: of the last dimension.
        found: out, `(channels x taps, outputs)` float32.
    """
    for channel in range(values.shape[0]):
        own = values[channel]
        for tap in range(len(taps)):
            row, first = found[channel * len(taps) + tap], 0
            for run in range(len(starts)):
                place = starts[run] + taps[tap]
                if stride == 1:
                    for output in range(lengths[run]):
                        row[first + output] = own[place + output]
                else:
                    for output in range(lengths[run]):
                        row[first + output] = own[place + output * stride]
                first += lengths[run]
