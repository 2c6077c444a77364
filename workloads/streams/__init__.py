"""Real inputs for a model: digits, CIFAR-10 archives and video."""

from workloads.streams.cifar_archive import CIFAR10_CLASSES, cifar10
from workloads.streams.digit_scans import digits
from workloads.streams.image_set import NORMALISATIONS, ImageSet, StreamError
from workloads.streams.video import SAMPLE_VIDEOS, video_frames

__all__ = [
    "CIFAR10_CLASSES",
    "NORMALISATIONS",
    "SAMPLE_VIDEOS",
    "ImageSet",
    "StreamError",
    "cifar10",
    "digits",
    "video_frames",
]
