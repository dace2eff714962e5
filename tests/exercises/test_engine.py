"""The engine of the exercises, on temporary ones."""

import functools
from fractions import Fraction

import numpy as np
import pytest
import torch

from course_lib import exercises as package
from course_lib.exercises import (
    UnknownExercise,
    Wrong,
    check,
    examine,
    exercise,
    exercises,
    hint,
    one_number,
    registry,
    same_call,
    same_choice,
    same_numbers,
    solution,
)


@pytest.fixture(autouse=True)
def no_chapters(monkeypatch):
    """No exercise but those made here, and none of them stays."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(package, "__path__", [])


def doubled(x):
    """Twice x."""
    return 2 * x


def function_task():
    @exercise("98.1", title="doubling", hints=("add", "x + x"), solution=doubled, wrong=[(lambda x: x, "came as")])
    def check_function(answer):
        same_call(answer, (3,), 6)


def value_task(expected=0.5, **more):
    @exercise("98.2", title="a half", hints=("think", "1/2"), solution=expected, **more)
    def check_value(answer):
        same_numbers(answer, expected)


def test_a_right_answer_passes():
    """Oracle: the exact line."""
    function_task()
    value_task()
    assert examine("98.1", doubled).message == "✓ 98.1 passed: doubling."
    assert examine("98.2", 0.5).message == "✓ 98.2 passed: a half."


def test_a_check_may_leave_a_remark():
    """Oracle: the text that the check returned."""

    @exercise("98.3", title="any", hints=("a", "b"), solution=1)
    def check_any(answer):
        return "There are others."

    assert examine("98.3", 7).message == "✓ 98.3 passed: any. There are others."


@pytest.mark.parametrize("answer", [None, ..., "", (), [1, ...], {"a": None}, (1, (2, None))])
def test_placeholders_are_empty_unless_they_are_an_answer(answer):
    """Oracle: a collection that still holds a placeholder is not an answer; one of nothing is a wrong one."""
    value_task()
    assert examine("98.2", answer).status == ("wrong" if answer == () else "empty")


def test_stubs_are_empty_and_forgotten_returns_are_not():
    """Oracle: what the reader has written so far."""
    function_task()

    def only_dots(x): ...

    def with_text(x):
        """Twice x."""

    def with_pass(x):
        pass

    def dots_returned(x):
        return ...

    def raising(x):
        raise NotImplementedError("write me")

    def forgotten(x):
        y = 2 * x  # noqa: F841

    def constant(x):
        return 3 if x else None

    for answer in (only_dots, with_text, with_pass, dots_returned, raising):
        assert examine("98.1", answer).status == "empty", answer.__name__
    verdict = examine("98.1", forgotten)
    assert verdict.status == "wrong"
    assert "forgotten gave back None, expected a result: is there a return at its end? hint" in verdict.message
    assert "came as 3, expected 6" in examine("98.1", constant).message


def test_an_error_in_the_readers_function_is_one_line_with_its_code():
    """Oracle: name, message and source line of the error; also from deep inside a library."""
    function_task()

    def broken(x):
        y = x.size
        return y

    def deep(x):
        return torch.zeros(2) @ torch.zeros(3)

    def leaving(x):
        raise SystemExit(1)

    said = examine("98.1", broken).message
    assert "broken raised AttributeError: 'int' object has no attribute 'size', in its line `y = x.size`." in said
    said = examine("98.1", deep).message
    assert "deep raised RuntimeError" in said
    assert "in its line `return torch.zeros(2) @ torch.zeros(3)`" in said
    assert "\n" not in said
    assert "leaving raised SystemExit" in examine("98.1", leaving).message
    assert "calling <lambda> raised TypeError" in examine("98.1", lambda: 3).message


def test_keyboard_interrupt_is_not_swallowed():
    """Oracle: a reader must be able to stop an endless loop."""
    function_task()

    def endless(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine("98.1", endless)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (5, "the answer came as int 5, expected a function"),
        ("f", "the answer came as the text 'f', expected a function"),
        (torch.zeros(2), "the answer came as a Tensor, expected a function"),
        (functools.partial(pow, 2), None),
        (len, "calling len raised TypeError"),
    ],
)
def test_what_is_no_function_is_named(answer, message):
    """Oracle: the message; partial(pow, 2)(3) is 8."""
    function_task()
    assert (message or "came as 8, expected 6") in examine("98.1", answer).message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (0.5, 0.5),
        (0.5 + 1e-9, 0.5),
        (Fraction(1, 2), 0.5),
        (torch.tensor(0.5), Fraction(1, 2)),
        (np.float32(0.5), 0.5),
        ([0, 1], torch.tensor([0.0, 1.0])),
        (range(3), [0, 1, 2]),
        ((Fraction(1, 3), 2), [1 / 3, 2]),
        (torch.eye(2).to_sparse(), np.eye(2)),
        (torch.ones(2, requires_grad=True), [1, 1]),
        ([float("nan"), float("inf")], [float("nan"), float("inf")]),
        (1e9 + 1, 1e9),
    ],
)
def test_numbers_in_any_dress_are_the_same(answer, expected):
    """Oracle: equality within a relative 1e-6, by hand."""
    same_numbers(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (0.51, 0.5, "the answer came as 0.51, expected 0.5"),
        (Fraction(1, 3), Fraction(1, 2), "the answer came as 1/3, expected 1/2"),
        ([1, 2], [1, 3], "the answer came as [1, 2], expected [1, 3]"),
        ((1,), (2,), "came as (1,), expected (2,)"),
        (torch.tensor([1.0, 2.0]), [1, 3], "came as [1, 2], expected [1, 3]"),
        ([1, 2, 3], [1, 2], "came with shape (3,), expected (2,)"),
        (3, [3], "came with shape () (one number), expected (1,)"),
        (float("nan"), 1, "came as nan, expected 1"),
        (1, float("inf"), "came as 1, expected inf"),
        ("0.5", 0.5, "came as the text '0.5', expected a number"),
        ("0.5", [0.5], "came as the text '0.5', expected numbers"),
        ([[1], [2, 3]], [1, 2], "came as a list, expected numbers"),
        ({1: 2}, torch.tensor(1), "came as a dict, expected a number"),
        (10**400, 1, "expected a number"),
        (torch.arange(20.0), torch.arange(20.0).flip(0), "differs at 20 of 20 places; the first is [0]: came 0, "),
    ],
)
def test_other_numbers_are_told_apart(answer, expected, message):
    """Oracle: the message holds what came and what was expected."""
    with pytest.raises(Wrong) as caught:
        same_numbers(answer, expected)
    assert message in str(caught.value)


def test_one_number():
    """Oracle: the float, or what came instead of one finite number."""
    assert one_number(Fraction(1, 4)) == one_number(torch.tensor(0.25)) == 0.25
    for answer, message in (
        ([1], "shape (1,)"),
        (float("nan"), "came as nan, expected a finite"),
        ("1", "the text '1', expected a number"),
    ):
        with pytest.raises(Wrong) as caught:
            one_number(answer)
        assert message in str(caught.value)


def test_a_call_is_shown_with_its_arguments_and_cannot_spoil_them():
    """Oracle: the message; a tensor that the answer overwrites is still what it was."""
    x = torch.ones(2)

    def overwrites(x, k=1):
        return x.zero_() + k

    with pytest.raises(Wrong, match=r"overwrites\(\[1, 1\], k=2\) came as \[2, 2\], expected \[3, 3\]"):
        same_call(overwrites, (x,), [3, 3], k=2)
    assert torch.equal(x, torch.ones(2))
    with pytest.raises(Wrong, match=r"overwrites\(<Tensor \(3, 4\)>\) came with shape"):
        same_call(overwrites, (torch.ones(3, 4),), 1)


def test_choices():
    """Oracle: why_not speaks for each wrong choice; what is no choice is told the choices."""
    same_choice(" B ", "b", {"a": "too small"})
    with pytest.raises(Wrong, match="came as 'a': too small"):
        same_choice("A", "b", {"a": "too small"})
    with pytest.raises(Wrong, match="came as 3, expected one of 'a', 'b'"):
        same_choice(3, "b", {"a": "too small"})


def test_check_hint_and_solution_print_and_never_raise(capsys):
    """Oracle: the exact lines a reader sees."""
    function_task()
    value_task()
    check("98.1", None)
    check("98.1", lambda x: x)
    check("98.9", 1)
    check("42", 1)
    check(None, 1)
    hint("98.2")
    hint("98.2", 2)
    hint("98.2", 3)
    hint("98.2", "x")
    hint("99.1")
    solution("98.2")
    solution("98.1")
    solution("1")
    assert capsys.readouterr().out.splitlines() == [
        '98.1 is still empty: write your answer in place of the ... and run the cell; hint("98.1") helps.',
        '✗ 98.1 not yet: <lambda>(3) came as 3, expected 6. hint("98.1") helps.',
        "There is no exercise '98.9'; chapter 98 has 98.1, 98.2.",
        "There is no exercise '42'; an id looks like \"04.2\", and there are exercises in chapters: 98.",
        'There is no exercise None; an id looks like "04.2", and there are exercises in chapters: 98.',
        'Hint 1 of 2 for 98.2: think  (hint("98.2", 2) says more.)',
        'Hint 2 of 2 for 98.2: 1/2  (solution("98.2") shows the solution.)',
        '98.2 has hints 1 to 2, there is no hint 3; solution("98.2") shows the solution.',
        "98.2 has hints 1 to 2, there is no hint 'x'; solution(\"98.2\") shows the solution.",
        "There is no exercise '99.1'; an id looks like \"04.2\", and there are exercises in chapters: 98.",
        "# One solution of 98.2, a half:",
        "answer = 0.5",
        "# One solution of 98.1, doubling:",
        "def doubled(x):",
        '    """Twice x."""',
        "    return 2 * x",
        "There is no exercise '1'; an id looks like \"04.2\", and there are exercises in chapters: 98.",
    ]


class Mute:
    """Cannot be written, compared, hashed or measured."""

    def __repr__(self):
        raise ValueError("mute")

    def __eq__(self, other):
        raise ValueError("mute")

    def __len__(self):
        raise ValueError("mute")

    __hash__ = None


class MuteError(Exception):
    def __str__(self):
        raise ValueError("mute")


@pytest.mark.parametrize(
    ("id", "said"),
    [(["a"], "['a']"), ({}, "{}"), (torch.zeros(2), "[0, 0]"), (Mute(), "<Mute>"), (10**5000, "<int>"), (1.5, "1.5")],
    ids=["list", "dict", "tensor", "mute", "int", "float"],
)
def test_whatever_stands_for_the_id_gets_one_line(id, said, capsys):
    """Oracle: the line that any unknown exercise gets; the level of a hint is treated alike."""
    value_task()
    check(id, 1)
    hint(id)
    solution(id)
    hint("98.2", id)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[:3]
        == [f'There is no exercise {said}; an id looks like "04.2", and there are exercises in chapters: 98.'] * 3
    )
    assert lines[3:] == [f'98.2 has hints 1 to 2, there is no hint {said}; solution("98.2") shows the solution.']


def inside_itself(kind):
    holder = kind()
    if kind is dict:
        holder["a"] = holder
    else:
        holder.extend([holder, holder])
    return holder


def nested(depth):
    value = [1]
    for _ in range(depth):
        value = [value]
    return value


def raises_mute(x):
    raise MuteError


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (inside_itself(list), "came as a list, expected a number"),
        (inside_itself(dict), "came as a dict, expected a number"),
        ((1, inside_itself(list)), "came as a tuple, expected a number"),
        (nested(5000), "came as a list, expected a number"),
        (10**5000, "came as int <int>, expected a number"),
        (Mute(), "came as a Mute, expected a number"),
        ([Mute()], "came as a list, expected a number"),
    ],
    ids=["list", "dict", "tuple", "deep", "int", "mute", "mutes"],
)
def test_an_answer_that_cannot_be_written_down_still_gets_its_line(answer, message, capsys):
    """Oracle: what kind of thing came; as an answer, from a function, and for a choice."""
    value_task()
    function_task()

    @exercise("98.6", title="choice", hints=("a", "b"), solution="a")
    def check_choice(answer):
        same_choice(answer, "a", {"b": "no"})

    check("98.2", answer)
    assert message in capsys.readouterr().out
    check("98.1", lambda x: answer)
    assert message in capsys.readouterr().out
    for id in ("98.1", "98.6"):
        assert examine(id, answer).status == "wrong"
    assert examine("98.2", [*nested(50), inside_itself(list), ...]).status == "empty"


def test_an_error_without_a_text_is_named():
    """Oracle: the type of the error, whose text raises in its turn."""
    function_task()
    assert "raises_mute raised MuteError" in examine("98.1", raises_mute).message


def test_examine_raises_for_an_unknown_exercise_only():
    """Oracle: a test that names an exercise wrongly must not be green."""
    with pytest.raises(UnknownExercise):
        examine("98.7", 1)


def test_a_check_that_breaks_on_an_odd_answer_still_gives_a_line():
    """Oracle: the type of the answer and the error."""

    @exercise("98.4", title="keys", hints=("a", "b"), solution={"k": 1})
    def check_keys(answer):
        if answer["k"] != 1:
            raise Wrong("k came as another")

    assert "the answer (a list) could not be used: TypeError" in examine("98.4", [1]).message


def test_a_result_in_place_of_the_function_is_named():
    """Oracle: a check that calls the answer without a look at what it is."""

    @exercise("98.5", title="call", hints=("a", "b"), solution=doubled)
    def check_call(answer):
        if [answer(x) for x in (1, 2)] != [2, 4]:
            raise Wrong("not doubled")

    assert "the answer came as float 15.5, expected a function: give its name" in examine("98.5", 15.5).message


def test_exercises_are_listed_in_order():
    """Oracle: 98.10 comes after 98.2."""
    for number in ("98.10", "98.2", "97.1"):
        exercise(number, title="t", hints=("a", "b"), solution=1)(lambda answer: None)
    assert list(exercises()) == ["97.1", "98.2", "98.10"]
    assert list(exercises("98")) == ["98.2", "98.10"]


def test_registration_refuses_what_would_confuse():
    """Oracle: the message names what came; registering the same function again (a reload) is fine."""
    with pytest.raises(ValueError, match="id must look like"):
        exercise("4.2", title="t", hints=("a", "b"), solution=1)
    with pytest.raises(ValueError, match="at least two hints"):
        exercise("04.2", title="t", hints=("a",), solution=1)
    with pytest.raises(ValueError, match="at least two hints"):
        exercise("04.2", title="t", hints="ab", solution=1)
    value_task()
    value_task()

    def other(answer): ...

    with pytest.raises(ValueError, match="already registered by"):
        exercise("98.2", title="t", hints=("a", "b"), solution=1)(other)


def test_chapters_are_found_by_the_names_of_their_modules(tmp_path, monkeypatch):
    """Oracle: a folder with one chapter and one other module."""
    (tmp_path / "chapter_97.py").write_text(
        "from course_lib.exercises import exercise, same_numbers\n"
        "@exercise('97.1', title='one', hints=('a', 'b'), solution=1)\n"
        "def check_97_1(answer):\n    same_numbers(answer, 1)\n",
        encoding="utf-8",
    )
    (tmp_path / "chapter_x.py").write_text("raise RuntimeError", encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    assert registry.chapters() == ["97"]
    assert examine("97.1", 1).status == "passed"
