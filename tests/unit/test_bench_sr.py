"""`course bench sr` at the sizes of a test. Oracles: rivals do the same work; ratios are times divided."""

import pytest
import torch

from course_lib.bench import sr


def test_every_case_is_timed_beside_its_floor() -> None:
    values = sr.run("cpu", 1, repeats=1, small=True)
    assert [row["case"].split()[0] for row in values["cases"]] == ["LIIF"] * 2 + ["Meta-SR"] * 3 + ["encoder"] * 2
    for row in values["cases"]:
        assert row["ours_ms"] > 0
        assert (row["over_bare"] is None) == (row["bare_ms"] is None)
    assert [row["dtype"] for row in values["half"]] == ["bfloat16", "float16"]
    assert values["half"][0]["signal_to_error_db"] > 15
    text = sr.table(values)
    assert all(row["case"] in text for row in values["cases"])
    with pytest.raises(ValueError, match="got 'tpu'"):
        sr.run("tpu", None, 1)


@torch.no_grad()
def test_plain_forms_do_the_same_work() -> None:
    torch.manual_seed(0)
    for name, functions in sr._cases("cpu", small=True):
        if "plain" in functions:
            ours, plain = functions["ours"](), functions["plain"]()
            if name.startswith("LIIF"):
                plain = torch.cat(plain).T.reshape(ours.shape)
            plain = plain / 2 + 0.5  # what the network makes is in [-1, 1]
            torch.testing.assert_close(ours.reshape(plain.shape), plain, rtol=0, atol=1e-4 * float(ours.abs().max()))


@pytest.mark.gpu
def test_on_cuda() -> None:
    values = sr.run("cuda", None, repeats=1, small=True)
    assert all(row["ours_ms"] > 0 for row in values["cases"])
