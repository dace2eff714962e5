"""VGG's convolutions: stages of 3 x 3 layers with pools between them, by configuration (chapters 11 and 14)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.blocks.checks import check_picture
from course_lib.upsampling.grids import check_length

Stages = Sequence[tuple[int, int]]

VGG16: Stages = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""(channels, convolutions) of each stage (Simonyan and Zisserman 2015, table 1, column D)."""
VGG19: Stages = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Column E of the same table."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue over ImageNet in [0, 1]: what published PyTorch weights expect."""


class VGG(nn.Module):
    """The stack of VGG-16 or VGG-19 up to a layer: (B, 3, H, W) -> maps, by names such as "conv1_2" and "relu3_1".

    stages: (channels, convolutions) of each stage; a stage k is conv<k>_1, relu<k>_1, conv<k>_2, ..., pool<k>. last:
    the name of the last layer, pool and all where None. pools: {"pool3": another pooling, ...}; the others are 2 x 2
    with stride 2, and a map of odd size loses its last row and column. normalise: pictures come in [0, 1], RGB, and are
    shifted and divided by MEAN and STD here; otherwise the caller has done what the weights expect.

    names: of the layers, in order. Layer names[n] is features[n], the number that torchvision's `vgg19().features`
    gives it: its tensors are features.n.weight and features.n.bias. New weights are drawn so that maps neither grow nor
    fade with depth (He et al. 2015, equation 10), biases are 0. Raises TypeError or ValueError for stages, names or
    pools that are none.
    """

    def __init__(
        self,
        stages: Stages = VGG19,
        last: str | None = None,
        pools: Mapping[str, nn.Module] | None = None,
        normalise: bool = True,
    ) -> None:
        """Make the layers up to the last one."""
        super().__init__()
        layers = _layers(stages)
        if unknown := [name for name in pools or {} if not isinstance(layers.get(name), nn.MaxPool2d)]:
            raise ValueError(f"pools must have names from pool1 to pool{len(stages)}, got {', '.join(unknown)}")
        layers |= pools or {}
        self.names = tuple(layers)
        if last is not None:
            self.names = self.names[: 1 + self._place("last", last)]
        self.features = nn.Sequential(*(layers[name] for name in self.names))
        self.normalise = normalise
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every layer here has one

    def forward(self, picture: Tensor) -> Tensor:
        """Return the last layer's map (B, C, h, w) of pictures (B, 3, H, W). Raises as `maps` does."""
        return self.maps(picture, self.names[-1:])[0]

    def maps(self, picture: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return the maps of the named layers, in the order asked for; layers behind the deepest of them do not run.

        picture: (B, 3, H, W) floating point, in [0, 1] where the stack normalises. Raises TypeError or ValueError for
        another picture, one too small for the pools that were asked for, and for an unknown name.
        """
        if isinstance(names, str) or not names:
            raise TypeError(f'names must be a list of layers such as ["relu3_1"], got {names!r}')
        deepest = max(self._place("names", name) for name in names)
        self._check(picture, deepest)
        x = picture
        if self.normalise:
            mean, std = (picture.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
            x = (picture - mean) / std
        kept: dict[str, Tensor] = {}
        for name, layer in zip(self.names[: deepest + 1], self.features, strict=False):
            x = layer(x)
            if name in names:
                kept[name] = x.clone() if name.startswith("conv") else x  # the ReLU behind it overwrites its map
        return [kept[name] for name in names]

    def load_published(self, state: Mapping[str, Tensor], prefix: str = "features.") -> None:
        """Copy the convolutions out of a published state dict; what the stack has not (a classifier) is passed over.

        prefix: what stands before the number there: "features." in torchvision's files, "" or "vgg." in those of
        detectors. Raises ValueError, before any copy, that lists tensors which are missing, misshapen or undefined.
        """
        wrong, found = [], {}
        for name, own in self.features.state_dict().items():
            came = state.get(prefix + name)
            if came is None:
                wrong.append(f"{prefix}{name} is missing")
            elif came.shape != own.shape or not came.is_floating_point():
                wrong.append(f"{prefix}{name} is {came.dtype} {tuple(came.shape)}, must be float {tuple(own.shape)}")
            elif not came.isfinite().all():
                wrong.append(f"{prefix}{name} has infinite or undefined values")
            else:
                found[name] = came
        if wrong:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise ValueError(f"state must hold this stack's weights, but {'; '.join(wrong[:4])}{more}")
        self.features.load_state_dict(found)

    def _place(self, argument: str, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"{argument}: {name!r} is no layer; they are {', '.join(self.names)}")
        return self.names.index(name)

    def _check(self, picture: Tensor, deepest: int) -> None:
        check_picture(picture)
        size = torch.empty(1, 1, *picture.shape[2:], device="meta")  # nothing is computed on it
        for name, layer in zip(self.names[: deepest + 1], self.features, strict=False):
            if name.startswith("pool"):
                try:
                    size = layer.forward(size)  # not called, because hooks are for maps
                except RuntimeError:
                    height, width = picture.shape[2:]
                    raise ValueError(f"picture must be large enough for {name}, got {height} x {width}") from None


def _layers(stages: Stages) -> dict[str, nn.Module]:
    """Return all layers by name, in order. Raises TypeError or ValueError for stages that are none."""
    given: Any = stages
    if not isinstance(given, list | tuple) or not given:
        raise TypeError(f"stages must be a list of (channels, convolutions), got {stages!r}")
    layers: dict[str, nn.Module] = {}
    before = 3
    for number, stage in enumerate(given, 1):
        if not isinstance(stage, list | tuple) or len(stage) != 2:
            raise TypeError(f"stages must be a list of (channels, convolutions), got {stage!r} in it")
        channels, count = check_length("channels", stage[0]), check_length("convolutions", stage[1])
        for k in range(1, count + 1):
            layers[f"conv{number}_{k}"] = nn.Conv2d(before, channels, 3, padding=1)
            layers[f"relu{number}_{k}"] = nn.ReLU(inplace=True)
            before = channels
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    return layers
