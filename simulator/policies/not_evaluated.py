"""Techniques of video and of pruning that nothing here evaluates: what each is, and why."""

from simulator.policies.technique import Technique, register

_NO_CLIPS = (
    "not evaluated: it gives one answer a clip, and no task, network or data of clips is here; "
    "frames alone are chosen by every_nth_frame or noscope"
)
_NO_DETECTOR = "not evaluated: it needs a trained detector and its boxes, and none is here"
_PRUNED = (
    "not evaluated as trained there: it ends in a smaller network; capture that one, or drop the "
    "same filters by dropped_columns"
)

# Each the values of `_FIELDS`.
_ENTRIES = (
    ("scale_time_lattice", "Scale-Time Lattice", "frames", "keep", "frame",
     "A detector runs in key frames, more of them where motion is large; boxes between them are "
     "propagated by motion history images and refined across scales.",
     "motion history images", "Chen et al., Scale-Time Lattice, CVPR 2018",
     "the detector, the propagation and the refinement", ("Scale-Time Lattice",), _NO_DETECTOR),
    ("lstm_ssd", "mobile detection with convolutional LSTMs", "model", "rewrite", "layer",
     "Recurrent layers carry features from frame to frame, so that a narrower network suffices.",
     "nothing: static", "Liu and Zhu, CVPR 2018", "the network", ("LSTM-SSD",), _NO_DETECTOR),
    ("dynamic_zoom_in", "dynamic zoom-in network", "frames", "skip", "region",
     "A coarse pass sees all; a network predicts what zooming in would gain, and another chooses "
     "the regions that are looked at in detail, one after the other.",
     "a coarse pass", "Gao et al., Dynamic zoom-in network, CVPR 2018",
     "the two networks, one by reward", ("dynamic zoom-in",), _NO_DETECTOR),
    ("patch_of_interest", "patch of interest", "frames", "skip", "region",
     "Patches that move are packed into a small frame, which alone is detected on.",
     "differences of pixels", "Zhang et al.; reference 162 of the survey of data redundancy",
     "the detector", ("patch of interest",), _NO_DETECTOR),
    ("scsampler", "SCSampler", "frames", "skip", "clip",
     "A light network scores the clips of a video; only the most salient are recognised.",
     "a light network on compressed video", "Korbar et al., SCSampler, ICCV 2019",
     "the sampler", ("SCSampler",), _NO_CLIPS),
    ("adaframe", "AdaFrame", "frames", "skip", "frame",
     "An LSTM with a memory chooses which frame to look at next, and when to stop.",
     "what was seen so far", "Wu et al., AdaFrame, CVPR 2019", "the LSTM, by reward",
     ("AdaFrame",), _NO_CLIPS),
    ("frame_glimpses", "frame glimpses", "frames", "skip", "frame",
     "A recurrent network looks at a few frames and tells where actions begin and end.",
     "what was seen so far", "Yeung et al., End-to-end learning of action detection from frame "
     "glimpses in videos, CVPR 2016", "the network, by reward", ("Frame glimpses",), _NO_CLIPS),
    ("action_search", "Action Search", "frames", "skip", "frame",
     "An LSTM learns from searches of people where to look next for an action.",
     "what was seen so far", "Alwassel et al., Action Search, ECCV 2018", "the LSTM",
     ("Action Search",), _NO_CLIPS),
    ("apoz", "network trimming by zero activations", "columns", "skip", "channel",
     "Channels whose activations are zero most often are taken out, and the rest is retrained.",
     "zeros on a data set, once", "Hu et al., Network trimming, arXiv 2016", "the network",
     ("APoZ",), _PRUNED),
    ("neuron_pruning", "neuron pruning", "columns", "skip", "channel",
     "Channels of little importance are taken out of all layers, and the rest is retrained.",
     "importance on a data set, once", "reference 22 of the survey of data redundancy",
     "the network", ("neuron pruning (ref 22)",), _PRUNED),
    ("activation_map_compression", "activation map compression", "depth", "skip", "value",
     "Training with a penalty on activations makes more of them zero; arrays that skip zeros gain.",
     "zeros among activations", "Georgiadis, Accelerating CNNs via activation map compression, "
     "CVPR 2019", "the network", ("activation map compression",),
     "not evaluated: the network must be trained so, and no array here skips zeros"),
)  # fmt: skip

_FIELDS = (
    "name", "title", "axis", "word", "grain", "rule", "evidence", "source", "trained", "published",
    "how",
)  # fmt: skip

for _entry in _ENTRIES:
    register(Technique(**dict(zip(_FIELDS, _entry, strict=True))))  # type: ignore[arg-type]
