"""One training loop, its recipes and its checkpoints.

>>> from course_lib.training import recipes, train
>>> result = train(recipes.get("espcn-x3"), "runs/espcn-x3")            # doctest: +SKIP
"""

from course_lib.training.batches import UnreadableData
from course_lib.training.checkpoint import FolderInUse, NotResumable
from course_lib.training.loop import Diverged, train
from course_lib.training.processes import OtherProcessFailed, mean_over_processes
from course_lib.training.recipe import Data, Recipe, Result, Row
from course_lib.training.stop import Stopped

__all__ = [
    "Data",
    "Diverged",
    "FolderInUse",
    "NotResumable",
    "OtherProcessFailed",
    "Recipe",
    "Result",
    "Row",
    "Stopped",
    "UnreadableData",
    "mean_over_processes",
    "train",
]
