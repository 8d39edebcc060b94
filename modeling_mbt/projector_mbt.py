"""The projector, which is discarded after pre-training.

Axes: B clips, P projected size, D latents.
"""

from itertools import pairwise

from torch import Tensor, nn

from .configuration_mbt import MBTConfig


class MBTProjector(nn.Module):
    """Representation to latents, (B, P) -> (B, D): linear without bias, batch norm, ReLU; the last linear is bare.

    As in arXiv 2103.03230.
    """

    def __init__(self, config: MBTConfig):
        super().__init__()
        widths = [config.projected_size, *config.projector_sizes]
        layers = []
        for i, o in pairwise(widths[:-1]):
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=False))

    def forward(self, representations: Tensor) -> Tensor:
        """Returns the latents."""
        return self.layers(representations)
