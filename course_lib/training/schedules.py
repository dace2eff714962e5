"""How the learning rate changes while a model trains."""

import math


def warm_up_cosine(step: int, steps: int, warm_up: int = 0) -> float:
    """Return the factor of step 0, 1, ..., steps - 1: it rises in a line over `warm_up` steps, then falls along half a
    cosine from 1 towards 0.

    Loshchilov & Hutter 2017 (one period); Goyal et al. 2017 (warm-up). Raises ValueError unless 0 <= warm_up < steps.
    """
    if not 0 <= warm_up < steps:
        raise ValueError(f"warm_up must be at least 0 and less than steps = {steps}, got {warm_up}")
    if step < warm_up:
        return (step + 1) / (warm_up + 1)
    return (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2
