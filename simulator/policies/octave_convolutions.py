"""Octave convolutions: no decision, but another network."""

from simulator.policies.technique import Technique, register

register(
    Technique(
        name="octconv",
        title="octave convolutions",
        axis="model",
        word="rewrite",
        grain="channel",
        rule="A share a of the channels lives at half the size, in four paths; 1 - (3/4) a (2 - a) "
        "of the multiplications are left, in products of fewer rows.",
        evidence="nothing: static",
        source="Chen et al., Drop an octave, ICCV 2019",
        how="capture --model octave_resnet20 (half of the channels), octave_resnet20_a125, "
        "octave_resnet20_a25 or octave_resnet20_a75; workloads.models.octconv builds others",
        trained="the network, from the start",
        published=("OctConv",),
    )
)
