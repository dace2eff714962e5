"""Each exercise of each chapter: its solution passes, empty and typically wrong answers get a helpful line."""

import inspect

import pytest

from course_lib import chapters
from course_lib.exercises import examine, exercises, hint, solution
from course_lib.exercises.ask import source_of

ALL = exercises()
IDS = list(ALL)


def stub(*args, **kwargs): ...


def stub_with_text(*args, **kwargs):
    """What a reader finds in the notebook."""
    return None


def not_yet(*args, **kwargs):
    raise NotImplementedError


EMPTY = {"None": None, "...": ..., "no text": " ", "def": stub, "return None": stub_with_text, "not yet": not_yet}


@pytest.mark.parametrize("id", IDS)
def test_the_solution_passes(id):
    """Oracle: the check itself, on the solution that readers are shown."""
    verdict = examine(id, ALL[id].solution)
    assert (verdict.status, verdict.message.startswith(f"✓ {id} passed: ")) == ("passed", True), verdict.message


@pytest.mark.parametrize("id", IDS)
def test_empty_answers_get_one_calm_line(id):
    """Oracle: the line begins as the notebooks show it; a function stub is empty wherever a function is asked for."""
    is_function = callable(ALL[id].solution)
    for name, answer in EMPTY.items():
        if callable(answer) and not is_function:
            continue
        verdict = examine(id, answer)
        assert verdict.status == "empty", (name, verdict.message)
        assert verdict.message.startswith(f"{id} is still empty: ")
        assert "\n" not in verdict.message


@pytest.mark.parametrize(("id", "k"), [(id, k) for id in IDS for k in range(len(ALL[id].wrong))])
def test_each_typical_wrong_answer_is_told_why(id, k):
    """Oracle: the fragment that the author of the exercise promised."""
    answer, fragment = ALL[id].wrong[k]
    verdict = examine(id, answer)
    assert verdict.status == "wrong", verdict.message
    assert fragment in verdict.message
    assert fragment


@pytest.mark.parametrize("id", IDS)
def test_strange_answers_never_raise_and_never_pass(id):
    """Oracle: none of these is an answer to anything in the book."""

    class Odd:
        def __len__(self):
            raise RuntimeError("odd")

    def raises(*args, **kwargs):
        raise ValueError("from the reader's code")

    for answer in ("a text", object(), Odd(), [[1], [2, 3]], {"a": 1}, float("nan"), raises, print, int, 10**400, b"x"):
        assert examine(id, answer).status == "wrong", answer


@pytest.mark.parametrize("id", IDS)
def test_an_exercise_is_complete(id, capsys):
    """Oracle: at least two hints that differ, at least one typical wrong answer, a title, a solution to print."""
    task = ALL[id]
    assert len(task.hints) >= 2
    assert len(set(task.hints)) == len(task.hints)
    assert task.wrong
    assert task.title
    for level in range(1, len(task.hints) + 1):
        hint(id, level)
        assert task.hints[level - 1] in capsys.readouterr().out
    solution(id)
    shown = capsys.readouterr().out
    assert source_of(task.solution) in shown
    assert not shown.rstrip().endswith(":")
    if inspect.isroutine(task.solution):
        assert task.solution.__name__ != "<lambda>", "readers see the source: give the solution a name"


def test_each_written_chapter_has_its_exercises():
    """Oracle: three to five in each chapter, numbered from 1 without a gap; NN.0 may be a rehearsal."""
    for about in chapters.all_chapters():
        if about.written:
            mine = [id for id in IDS if id.startswith(f"{about.number}.") and not id.endswith(".0")]
            assert mine == [f"{about.number}.{k}" for k in range(1, len(mine) + 1)]
            assert 3 <= len(mine) <= 5, about.number
