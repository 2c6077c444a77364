"""Real inputs for a model: digits, CIFAR-10, videos, pictures, arrays, labelled clips of drives."""

from workloads.streams.apolloscape import (
    APOLLOSCAPE_CLASSES,
    apolloscape_lanes,
    apolloscape_scenes,
)
from workloads.streams.arrays import Arrays, array_inputs
from workloads.streams.camvid import CAMVID_CLASSES, camvid
from workloads.streams.cifar_archive import CIFAR10_CLASSES, cifar10
from workloads.streams.clips import Clip, Clips, ClipSet
from workloads.streams.digit_scans import digits
from workloads.streams.image_set import NORMALISATIONS, ImageSet, StreamError
from workloads.streams.lanes import LANE_CLASSES, lane_frames, tvtlane, video_clips
from workloads.streams.pictures import pictures
from workloads.streams.video import SAMPLE_VIDEOS, video_frames

__all__ = [
    "APOLLOSCAPE_CLASSES",
    "CAMVID_CLASSES",
    "CIFAR10_CLASSES",
    "LANE_CLASSES",
    "NORMALISATIONS",
    "SAMPLE_VIDEOS",
    "Arrays",
    "Clip",
    "ClipSet",
    "Clips",
    "ImageSet",
    "StreamError",
    "apolloscape_lanes",
    "apolloscape_scenes",
    "array_inputs",
    "camvid",
    "cifar10",
    "digits",
    "lane_frames",
    "pictures",
    "tvtlane",
    "video_clips",
    "video_frames",
]
