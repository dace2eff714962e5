"""What `course compare classifiers` adds: what the small classifiers cost."""

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.cli.compare_detection import differences
from course_lib.training.recipes.classifiers import ClassifierRecipe

if TYPE_CHECKING:
    from course_lib.training import Result

YARDSTICK = "conv-scenes"


def complete(results: "dict[str, list[Result]]", values: dict[str, Any]) -> str:
    """Add to the values of each classifier "cost", {"parameters", "multiply_adds" of one picture}, and "differences"
    from `YARDSTICK`, and return what the protocol says of them; nothing where a recipe is not of a classifier.
    """
    if not all(isinstance(some[0].recipe, ClassifierRecipe) for some in results.values()):
        return ""
    for name, some in results.items():
        model: Any = some[0].model.cpu().eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, *model.picture))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        values[name]["cost"] = {"parameters": parameters, "multiply_adds": int(counter.get_total_flops()) // 2}
        if name != YARDSTICK and YARDSTICK in results:
            values[name]["differences"] = differences(values, name, YARDSTICK)
    return "; accuracy: share of right answers; differences: of runs with the same seed, mean and 95 % bar"
