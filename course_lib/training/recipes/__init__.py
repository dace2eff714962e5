"""The recipes by name: one module for each family, whose `RECIPES` lists what it can train."""

import dataclasses
import difflib
import functools
import importlib
import pkgutil
from typing import Any

from course_lib.training.recipe import Recipe


@functools.cache
def _all() -> dict[str, Recipe]:
    """Collect `RECIPES` from every module of this package."""
    found: dict[str, Recipe] = {}
    for module in pkgutil.iter_modules(__path__):
        for recipe in importlib.import_module(f"{__name__}.{module.name}").RECIPES:
            if recipe.name in found:
                raise ValueError(f"two recipes have the name {recipe.name!r}")
            found[recipe.name] = recipe
    return found


def names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(_all())


def get(name: str, **changes: Any) -> Recipe:
    """Return the recipe `name`, with some fields changed: `get("espcn-x3", seed=1)`.

    Raises ValueError for an unknown name (similar ones are shown), an unknown field or a value out of range.
    """
    try:
        recipe = _all()[name]
    except KeyError:
        near = difflib.get_close_matches(name, names(), n=3) or names()
        raise ValueError(f"no recipe has the name {name!r}; there are: {', '.join(near)} (course recipes)") from None
    known = [field.name for field in dataclasses.fields(recipe)]
    for field in changes:
        if field not in known:
            raise ValueError(f"the recipe {name} has no field {field!r}; it has: {', '.join(known)}")
    return dataclasses.replace(recipe, **changes)
