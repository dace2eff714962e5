"""Meta-SR. The authors' code, github.com/XuecaiHu/Meta-SR-Pytorch, model/metardn.py; raw state dicts, loaded there with
strict=False, which lets misspelt names pass.

Its mean shifts are trained, although the code sets `requires_grad = False` on them: that is an attribute of the module,
which nothing reads. Its weight network takes 1 / r first, as ours.
"""

from collections.abc import Callable

from torch import nn

from course_lib.official.rdn import rename_encoder
from course_lib.super_resolution.meta_sr import MetaSR

MODELS: dict[str, Callable[[], nn.Module]] = {"metasr_rdn": MetaSR}
"""Name of the checkpoint -> our model with its configuration."""

LEFT_AS_INITIALISED = (r"^subtract\.", r"^add\.")
"""Our names that may be absent: the mean shifts, which begin as the mean colour of DIV2K."""

_OUTER = {
    "sub_mean.": "subtract.",
    "add_mean.": "add.",
    "P2W.meta_block.0.": "filters.first.",
    "P2W.meta_block.2.": "filters.last.",
}


def rename(name: str) -> str:
    """Return what `MetaSR` calls an official tensor; another name comes back as it is."""
    for theirs, ours in _OUTER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    ours = rename_encoder(name)
    return name if ours == name else f"trunk.{ours}"


RENAMES: dict[str, Callable[[str], str]] = {"metasr_rdn": rename}
"""Name of the checkpoint -> official name of a tensor to ours."""
