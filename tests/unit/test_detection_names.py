"""What `course_lib.detection` and its family of networks offer. Oracle: the modules that define it."""

from importlib import import_module

import pytest

PACKAGES = ("course_lib.detection", "course_lib.detection.families.ssd")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_that_of_its_module(package: str) -> None:
    """Whatever was imported first: `anchors` and `nms` are functions, although modules are called so too."""
    import_module("course_lib.detection.anchors")
    import_module("course_lib.detection.nms")
    offered = import_module(package)
    assert len(set(offered.__all__)) == len(offered.__all__)
    for name in offered.__all__:
        value = getattr(offered, name)
        if callable(value):
            assert value.__module__.startswith(package)
            assert getattr(import_module(value.__module__), name) is value
