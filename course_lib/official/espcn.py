"""ESPCN. The paper's authors published no code; these are the names of the port github.com/leftthomas/ESPCN.

Its tensors are called as ours. It puts a sigmoid behind the shuffle, which the paper has not: pass
``ESPCN(r, output="sigmoid")`` the state dict to get the port's own pictures.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.super_resolution.espcn import ESPCN

MODELS: dict[str, Callable[[], nn.Module]] = {f"espcn_x{scale}": partial(ESPCN, scale) for scale in (2, 3, 4, 8)}
"""Name of the checkpoint -> our model with its configuration."""
