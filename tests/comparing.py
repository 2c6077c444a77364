"""What tests of units that compare vectors share."""

from dataclasses import replace

import numpy as np

from accelerators import SystolicArray, preset
from simulator import decide, simulate
from simulator.pages.simulation_page import simulation_html
from tests.builders import convolution_layer
from workloads import capture

# 8x8 vectors of 16, equal within blocks of 2x2.
LAYER = convolution_layer(size=(8, 8), kernel=(1, 1), channels=16, n=16)
IN_BLOCKS = np.repeat(np.repeat(np.eye(16, dtype=np.float32).reshape(4, 4, 16), 2, 0), 2, 1)
IN_BLOCKS = IN_BLOCKS.reshape(1, 64, 16)


def done_by(timing, unit):
    """Action of a unit -> how often."""
    return {name: n for (part, name), n in timing.actions.items() if part == unit}


def run_and_told(policy, base, slow):
    """A policy's decisions on a convolution of 16 x 16 pixels, equal within blocks of 4x4.

    Checks that what they cost and a design with a slow unit are told about.

    Args:
        policy: the policy.
        base: name of a preset.
        slow: a unit of its kind that the array of a larger design waits for.
    """
    import torch

    model = torch.nn.Conv2d(8, 16, 3, padding=1)
    smooth = torch.nn.Upsample(scale_factor=4)(torch.randn(1, 8, 4, 4))
    trace = capture(model, smooth)
    run = decide(trace, policy, model=model)
    assert run.output_mse < 1e-10
    design = preset(base)
    (field,) = (name for name, unit in design.units.items() if type(unit) is type(slow))
    report = simulate(trace, design, run)
    assert report.reuse.energy_pj[field] > 0
    assert slow.words in simulation_html(report.to_dict())
    narrow = replace(design, name="narrow", array=SystolicArray(rows=256, columns=256))
    report = simulate(trace, replace(narrow, **{field: slow}), run)
    assert report.reuse.bound_by == field
    assert f"bound by {field.replace('_', '-')}" in report.verdict
    return run.decisions[trace.layers[0].name]
