"""Several linear layers with ReLUs between them, as DETR's head for boxes (chapters 19, 20, 22 and 23)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length


class MLP(nn.Module):
    """`layers` linear layers with a ReLU behind each but the last: (..., inputs) -> (..., outputs).

    hidden: channels between them. Tensors: layers.<i>. Raises TypeError or ValueError for numbers that are not whole
    and >= 1.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int) -> None:
        """Make the layers with PyTorch's own random weights."""
        super().__init__()
        for name, number in {"inputs": inputs, "hidden": hidden, "outputs": outputs, "layers": layers}.items():
            check_length(name, number)
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's numbers."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        result: Tensor = self.layers[-1](x)
        return result
