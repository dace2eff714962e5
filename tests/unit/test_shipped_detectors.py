"""Detectors that come with the book, their cards, and how they are measured and compared.

Oracles: the files' own hashes, numbers measured again, `evaluate` of the library, Student's table.
"""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from typer.testing import CliRunner

from course_lib import checkpoints, files, measurements
from course_lib.cli import app, compare_detection, detection_sets, options, ship_detection
from course_lib.cli.compare import summary
from course_lib.cli.detection_sets import DATA
from course_lib.cli.errors import Refused
from course_lib.cli.evaluate_detection import evaluate, protocol, table
from course_lib.detection import evaluation
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.super_resolution.espcn import ESPCN
from course_lib.training import Result, recipes, train
from course_lib.training.detectors import HARD, held_out
from course_lib.training.recipes.detection import ScenesRecipe

PARAMETERS = {"ssd-tiny": 455_928, "ssd-tiny-bccd": 455_928}
SMALL: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8}


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def tiny(name: str = "tiny", **fields: Any) -> ScenesRecipe:
    chosen = {"steps": 2, "batch": 2, "held_out": 2, "about": "a test", **SMALL, **fields}
    return ScenesRecipe(name=name, **chosen)


def test_a_card_says_how_many_boxes_an_object_has() -> None:
    """Oracle: the card's own number, or in words that there is none."""
    card = checkpoints.card("detr-tiny")
    number = card["metrics"]["scenes-easy"]["duplicates"]
    text = "\n".join(ship_detection.lines(card))
    assert f"boxes of score 0.5 and more for each object found, besides its first: {number:.3f}" in text
    card["metrics"]["scenes-easy"]["duplicates"] = None
    assert "no object has a box of score 0.5 and more" in "\n".join(ship_detection.lines(card))


def test_cards_and_weights_agree() -> None:
    """Oracle: hash and size of the file, parameters counted again, a score measured again on a free photograph."""
    assert set(PARAMETERS) <= set(options.detectors())
    for name in options.detectors():
        card, model = checkpoints.card(name), checkpoints.load(name)
        weights = checkpoints.paths(name)[0]
        assert isinstance(model, TinyDetector | TinySetDetector)
        assert (card["name"], card["model"]) == (name, type(model).__name__)
        assert card["sha256"] == checkpoints.sha256(weights)
        assert card["bytes"] == weights.stat().st_size < 2e6
        assert card["parameters"] == sum(p.numel() for p in model.parameters())
        assert card["parameters"] == PARAMETERS.get(name, card["parameters"])
        assert ship_detection.photograph_score(model) == pytest.approx(card["photograph"]["score"], abs=1e-4)
        for key in ("hardware", "seconds", "cpu_seconds", "revision", "steps", "data", "command"):
            assert card["training"][key], key
        with safetensors.safe_open(weights, "pt") as file:
            assert file.metadata()["licence"] == card["licence"]
        if card["aim"] is not None:
            assert card["aim"]["reached"] == (card["metrics"][card["aim"]["set"]]["AP50"] >= card["aim"]["AP50"])
        text = course("card", name).stdout
        for data, row in card["metrics"].items():
            assert f"{data}: AP50 {row['AP50']:.4f}" in text
            assert set(row["per_class"]) == set(model.names)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of our own, one small recipe, and few scenes to measure on."""
    data = tmp_path / "data"
    for module in (measurements, checkpoints, files):
        monkeypatch.setattr(module, "data_dir", lambda: data)
    monkeypatch.setattr(recipes, "_all", lambda: {"tiny": tiny(aim=0.95)})
    monkeypatch.setattr(ship_detection, "evaluate", partial(evaluate, pictures=3))
    return tmp_path


def test_ship_measures_and_writes(workshop: Path) -> None:
    """Oracle: the network of the training itself, measured by `evaluate`; lists of commands know what it is."""
    result = train(recipes.get("tiny"), workshop / "run", device="cpu", progress=False)
    values = {"curve": result.curve, "steps": result.steps, "seconds": 60.0, "cpu_seconds": 61.0}
    measurements.write("train_tiny", values, command="course train tiny", protocol="p", data=result.data, seed=0)
    done = course("ship", "tiny", "--from", workshop / "run")
    assert done.exit_code == 0, done.output
    card, model = checkpoints.card("tiny"), checkpoints.load("tiny")
    assert isinstance(model, TinyDetector)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in result.model.state_dict().items())
    assert card["metrics"] == {"scenes-easy": evaluate(model, "scenes-easy", 3)}
    assert card["aim"] == {"set": "scenes-easy", "AP50": 0.95, "reached": False}
    assert card["licence"].startswith("CC BY 4.0")
    assert "aim: AP50 0.95 on scenes-easy, not reached" in done.stdout
    checkpoints.publish("other", ESPCN(3), {}, {})
    (workshop / "data" / "checkpoints" / "broken.safetensors").write_bytes(b"\xff" * 20)
    assert options.detectors() == ["tiny"]
    assert options.networks() == ["broken", "other"]
    refused = course("upscale", workshop / "x.png", "--model", "tiny")
    assert refused.exit_code == 2
    assert "must be one of broken, other; got 'tiny'" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(("member", "probability"), [("detr", 0.75), ("deformable", 0.5)])
def test_cards_of_sets(member: Any, probability: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: logits of 0: three classes of four are objects, or each class is as likely as not; sets as asked for."""
    model = TinySetDetector(member, width=16, heads=2, feed=16, encoder=1, decoder=1).eval()
    shape = (1, 5, model.classes)
    monkeypatch.setattr(model, "forward", lambda images: {"logits": torch.zeros(shape), "boxes": torch.zeros(1, 5, 4)})
    assert ship_detection.photograph_score(model) == probability
    monkeypatch.setattr(ship_detection, "evaluate", lambda found, data: {"AP50": 0.9 if data == "scenes-hard" else 0.1})
    facts = ship_detection.measured(model, 0.8, ("scenes-hard", "scenes-easy"))
    assert facts["aim"] == {"set": "scenes-hard", "AP50": 0.8, "reached": True}
    assert list(facts["metrics"]) == ["scenes-hard", "scenes-easy"]
    assert list(ship_detection.measured(model, None)["metrics"]) == ["scenes-easy"]
    assert "the 100 best boxes of the set" in facts["protocol"]


def test_evaluate_takes_sets_by_name() -> None:
    """Oracle: `evaluation.evaluate` on the scenes themselves; what has no objects is None."""
    torch.manual_seed(0)
    model = TinyDetector(**SMALL).eval()
    found = evaluate(model, "scenes-hard", 3)
    scenes = held_out(HARD.__class__(**{**vars(HARD), "seed": 1_000_003}), 3)
    again = evaluation.evaluate(model, scenes, model.names)
    assert found["AP50"] == pytest.approx(again["AP50"], abs=1e-6)
    assert (found["pictures"], found["objects"]) == (3, sum(len(one.labels) for one in scenes))
    assert found["duplicates"] is None
    json.dumps(found, allow_nan=False)
    lines = table("scenes-hard", {"x": found}).splitlines()
    assert lines[:2] == [f"scenes-hard: 3 pictures, {found['objects']} objects", " " * 25 + "x"]
    assert lines[8].split() == ["duplicates", "-"]
    assert len(lines) == 2 + 6 + 1 + 3
    assert "sides (roots of areas) of 12 and 24 pixels" in protocol("scenes-hard")
    assert protocol("scenes-hard").startswith("the first of Scenes(seed=1000003, size=(96, 96)")
    assert "32 and 96" in protocol("BCCD-test")
    assert DATA == ("scenes-easy", "scenes-hard", "scenes-family", "scenes-line", "BCCD-val", "BCCD-test")
    with pytest.raises(Refused, match=r"data must be one of scenes-easy, .*; got 'COCO'"):
        evaluate(model, "COCO")
    other = TinyDetector(names=("cat", "dog"), **SMALL).eval()
    with pytest.raises(Refused, match="has the classes disc, square, triangle; this detector has cat, dog"):
        evaluate(other, "scenes-easy")


@pytest.mark.needs_data("BCCD")
def test_cells_are_measured_in_their_own_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a detector that sees them at half the size has the truths of the whole pictures to find."""
    monkeypatch.setattr(detection_sets, "BCCD", lambda part: Few(part))
    torch.manual_seed(0)
    model = TinyDetector(names=("RBC", "WBC", "Platelets"), picture=(60, 80), **SMALL).eval()
    found = evaluate(model, "BCCD-test")
    assert found["pictures"] == 2
    assert list(found["per_class"]) == ["RBC", "WBC", "Platelets"]


class Few:
    """Two pictures of BCCD."""

    def __init__(self, part: Any) -> None:
        from course_lib.datasets.bccd import BCCD

        self.whole = BCCD(part)
        self.sample = self.whole.sample

    def __len__(self) -> int:
        return 2


def test_differences_are_paired() -> None:
    """Oracle: Student's factor for three numbers, 4.303, and numbers by hand."""
    found = compare_detection.paired([0.5, 0.7, 0.6], [0.4, 0.4, 0.4])
    assert found["runs"] == pytest.approx([0.1, 0.3, 0.2])
    assert found["mean"] == pytest.approx(0.2)
    assert found["bar"] == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert compare_detection.paired([0.5], [0.25]) == {"mean": 0.25, "bar": None, "runs": [0.25]}


def test_a_comparison_of_detectors_says_what_they_cost() -> None:
    """Oracle: the models themselves; who is compared with whom, by hand."""
    members: dict[str, Any] = {
        "toy-ssd": {"member": "ssd"},
        "toy-dssd": {"member": "dssd"},
        "toy-dsod": {"member": "dsod"},
        "toy-dsod-plain": {"member": "dsod_plain"},
    }
    results = {name: [made(tiny(name, **fields), 0.1 * k) for k in range(2)] for name, fields in members.items()}
    values: dict[str, Any] = {name: summary([one.curve for one in some]) for name, some in results.items()}
    said = compare_detection.complete(results, values, repeats=1)
    assert "sides (roots of areas) of 12 and 24 pixels" in said
    for name, some in results.items():
        cost, model = values[name]["cost"], some[0].model
        assert cost["parameters"] == sum(p.numel() for p in model.parameters())
        assert cost["multiply_adds"] == evaluation.multiply_adds(model)  # type: ignore[arg-type]
        assert cost["anchors"] == 4 * (16**2 + 8**2 + 4**2 + 2**2)
        assert cost["milliseconds"] > 0
        assert cost["times"] >= 1
    assert "differences" not in values["toy-ssd"]
    wanted = {"toy-dssd": "toy-ssd", "toy-dsod": "toy-ssd", "toy-dsod-plain": "toy-dsod"}
    assert {name: values[name]["differences"]["from"] for name in wanted} == wanted
    assert set(values["toy-dssd"]["differences"]) == {"from", "AP", "loss"}
    assert values["toy-dssd"]["differences"]["AP"]["mean"] == pytest.approx(0)
    json.dumps(values, allow_nan=False)


def made(recipe: ScenesRecipe, score: float) -> Result:
    """A training that nobody ran."""
    first, last = {"step": 0.0, "seconds": 0.0}, {"step": 2.0, "seconds": 1.0, "loss": 1.0, "AP": score}
    nothing: Any = {"steps": 2, "seconds": 1.0, "cpu_seconds": 1.0, "data": "", "path": None, "machines": []}
    return Result(recipe=recipe, model=recipe.model().eval(), curve=[first, last], **nothing)


def test_other_recipes_have_no_such_costs() -> None:
    """Oracle: values and words stay as they are."""
    recipe = recipes.get("espcn-x3")
    nothing: Any = {"steps": 2, "seconds": 1.0, "cpu_seconds": 1.0, "data": "", "path": None, "machines": []}
    values: dict[str, Any] = {"espcn-x3": {}}
    result = Result(recipe=recipe, model=recipe.model(), curve=[], **nothing)
    assert compare_detection.complete({"espcn-x3": [result]}, values) == ""
    assert values == {"espcn-x3": {}}
