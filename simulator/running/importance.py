"""How much a loss hangs on each channel of a network."""

from typing import TYPE_CHECKING

import numpy as np

from simulator.policies.policy import LayerState

if TYPE_CHECKING:
    import torch


def importance_by_gradient(
    model: "torch.nn.Module", images: "torch.Tensor", labels: "torch.Tensor"
) -> dict[str, LayerState]:
    """What `SubFlow` ranks channels by, from the gradient of the cross-entropy loss.

    The sum of |weight x gradient| over a filter's weights: what the loss would change by, to first
    order and with no sign cancelling another, if the filter's weights were 0.

    Args:
        model: a classifier; left as it was, its gradients included.
        images: `(n, ...)` to learn from, best not those that the network is judged on.
        labels: `(n,)` int64.

    Returns:
        Path of a convolution -> `importance` `(channels of a group,)` float64, the sum over groups;
        for `decide(calibration=...)`.
    """
    import torch  # the only part that needs it

    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        weights = [layer.weight for layer in layers.values()]
        gradients = torch.autograd.grad(loss, weights)
    found: dict[str, LayerState] = {}
    for (name, layer), gradient in zip(layers.items(), gradients, strict=True):
        each = (layer.weight.detach() * gradient).abs().sum(dim=(1, 2, 3))
        groups = each.double().cpu().numpy().reshape(layer.groups, -1)
        found[name] = {"importance": np.asarray(groups.sum(axis=0))}
    return found
