"""`small_cnn`: the small network that papers compare large backbones with. Three blocks 32-64-128 and a 2-layer head.

The published network has 605,521 parameters for 28 x 28 one-channel images and one output, with unnamed widths. With
the hidden width below ours has 605,497: 92,672 in the convolutions, 448 in BatchNorm, 511,932 in the hidden layer and
445 in the output layer, which is the trial's linear head.

Shapes: B images, C channels, S side in pixels.
"""

from __future__ import annotations

import torch
from torch import nn

HIDDEN = 444


class SmallCNN(nn.Module):
    """Images (B, C, S, S) with S >= 8 -> features (B, 444); the last layer of the 2-layer head is the trial's own.

    Args:
        in_chans: C.
        dropout: probability in the blocks.
        norm: whether the blocks have BatchNorm.
    """

    num_features = HIDDEN

    def __init__(self, in_chans: int = 1, dropout: float = 0.25, *, norm: bool = True):
        super().__init__()
        self.blocks = nn.ModuleList()
        for width, wider in zip((in_chans, 32, 64), (32, 64, 128), strict=True):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(width, wider, 3, padding=1),
                    nn.BatchNorm2d(wider) if norm else nn.Identity(),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2),
                    nn.Dropout(dropout),
                )
            )
        # 28 pixels arrive here as 3 x 3 and pass unchanged; other sizes are pooled, so that the width of the hidden
        # layer does not depend on the image.
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(128 * 9, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, 444)."""
        for block in self.blocks:
            images = block(images)
        return self.hidden(self.pool(images))

    def stages(self) -> list[list[str]]:
        """Names of the parameters by depth, from the input, as mode last_n counts them: three blocks, hidden layer."""
        names = [name for name, _ in self.named_parameters()]
        parts = [*(f"blocks.{block}." for block in range(len(self.blocks))), "hidden."]
        return [[name for name in names if name.startswith(part)] for part in parts]
