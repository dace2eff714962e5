"""What several unit tests share."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib.datasets import sets


@pytest.fixture
def tiny_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for BSDS500: two noisy pictures, 40 x 31 and 26 x 90, and one that must be left out."""
    files = {"train/a.png": (40, 31, 3), "train/out.png": (40, 40, 3), "test/b.png": (26, 90, 3)}
    for number, (name, shape) in enumerate(files.items()):
        path = tmp_path / "BSDS500" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(noise).save(path)
    group = {
        "repository": "nobody/nothing",
        "commit": "0",
        "folder": "",
        "to": "images/",
        "files": [[name, "0", 1] for name in files],
    }
    entry = {"about": "noise", "licence": "free", "leave_out": ["images/train/out.png"], "sources": [group]}
    monkeypatch.setattr(sets, "registry", lambda: {"BSDS500": entry})
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    return tmp_path / "BSDS500" / "images"
