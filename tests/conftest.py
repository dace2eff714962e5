"""What all tests share: who may skip, and the settings that keep runs alike."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("COURSE_PICTURE", "default")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
MAY_SKIP = ("gpu", "needs_data")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run: `gpu` without CUDA, `needs_data("Set5", ...)` without those sets."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    for marker in item.iter_markers("needs_data"):
        from course_lib import datasets

        for name in marker.args:
            try:
                datasets.find(name)
            except datasets.DataMissing as missing:
                pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With CI=true a skip is a failure, unless the test needs a GPU or a downloaded set."""
    report = yield
    allowed = any(item.get_closest_marker(name) for name in MAY_SKIP)
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail") and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow here: {report.longrepr}"
    return report
