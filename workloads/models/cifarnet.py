"""CifarNet, the small CIFAR-10 network of TF-slim that Deep Reuse measures."""

from __future__ import annotations

import torch
from torch import nn

from workloads.models.errors import ModelError
from workloads.rules import integer, number, problems, refuse


class LocalResponseNorm(nn.Module):
    """TensorFlow's `lrn` with depth_radius=4, bias=1, alpha=0.001/9 and beta=0.75, as in slim.

    y_c = x_c / (1 + 0.001/9 * sum of x_i^2 over channels c-4 .. c+4)^0.75, with zeros beyond the
    first and last channel (Krizhevsky, Sutskever and Hinton, NeurIPS 2012, section 3.3).

    TensorFlow's alpha multiplies the sum; PyTorch divides its alpha by the number of channels
    summed, so this equals `torch.nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)`, which
    takes three times as long on a CPU: it sums by a three-dimensional pooling.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `(n, c, h, w)` activations across channels; same shape."""
        squares = nn.functional.pad(x * x, (0, 0, 0, 0, 4, 4))
        # Sums of 2, 4 and 8 neighbouring channels by doubling, then the ninth.
        pairs = squares[:, :-1] + squares[:, 1:]
        fours = pairs[:, :-2] + pairs[:, 2:]
        eights = fours[:, :-4] + fours[:, 4:]
        nines = eights[:, :-1] + squares[:, 8:]
        return x * torch.pow(1 + (0.001 / 9) * nines, -0.75)


class CifarNet(nn.Module):
    """CifarNet: two 5x5 convolutions of 64 filters and three linear layers, on 32x32 RGB.

    Layer for layer TF-slim's `cifarnet` (tensorflow/models, research/slim/nets/cifarnet.py), the
    baseline of Deep Reuse (Ning, Guan and Shen, ICDE 2019; Table II: K=75 and K=1600, M=64):

    conv1 5x5x64 SAME, ReLU, 2x2 max pool, LRN; conv2 5x5x64 SAME, ReLU, LRN, 2x2 max pool;
    linear 384, ReLU, dropout; linear 192, ReLU; logits. Initial weights and biases are slim's.

    Differences that change no result: activations are flattened channels-first here, so
    TensorFlow checkpoints need their fc3 rows permuted. The L2 penalty of slim's training is the
    trainer's business (`weight_decay`).

    Args:
        num_classes: number of logits.
        dropout: probability of dropping a unit of the first linear layer while training
            (slim's dropout_keep_prob is one minus this).

    Raises:
        ModelError: for arguments out of range, and for inputs that are not `(n, 3, 32, 32)`.
    """

    input_shape = (3, 32, 32)

    def __init__(self, num_classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        given = {"num_classes": num_classes, "dropout": dropout}
        rules = {"num_classes": integer(1), "dropout": number(below=1, fix="use 0 for none")}
        refuse(problems("CifarNet ", given, rules), ModelError)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=5, padding=2)
        self.pool1 = nn.MaxPool2d(2, 2)
        self.norm1 = LocalResponseNorm()
        self.conv2 = nn.Conv2d(64, 64, kernel_size=5, padding=2)
        self.norm2 = LocalResponseNorm()
        self.pool2 = nn.MaxPool2d(2, 2)
        self.fc3 = nn.Linear(64 * 8 * 8, 384)
        self.dropout3 = nn.Dropout(dropout)
        self.fc4 = nn.Linear(384, 192)
        self.logits = nn.Linear(192, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        # Standard deviations and biases of slim's cifarnet and cifarnet_arg_scope.
        for layer, deviation, bias in (
            (self.conv1, 0.05, 0.0),
            (self.conv2, 0.05, 0.0),
            (self.fc3, 0.04, 0.1),
            (self.fc4, 0.04, 0.1),
            (self.logits, 1 / 192, 0.0),
        ):
            # TensorFlow truncates at two deviations.
            nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `(n, num_classes)` logits of `(n, 3, 32, 32)` float32 images."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise ModelError(
                f"CifarNet input must have shape (n, 3, 32, 32), got {tuple(images.shape)}; "
                "resize the images to 32x32 RGB"
            )
        x = self.norm1(self.pool1(torch.relu(self.conv1(images))))
        x = self.pool2(self.norm2(torch.relu(self.conv2(x))))
        x = torch.flatten(x, 1)
        x = self.dropout3(torch.relu(self.fc3(x)))
        x = torch.relu(self.fc4(x))
        return self.logits(x)
