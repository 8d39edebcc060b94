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
        """Returns the latents.

        Raises:
            ValueError: In training, there is one clip alone, and batch norm is not synchronized between processes.
        """
        if self.training and len(representations) < 2 and any(type(one) is nn.BatchNorm1d for one in self.layers):
            raise ValueError("Batch norm needs two clips at least in training: raise the batch size.")
        return self.layers(representations)
