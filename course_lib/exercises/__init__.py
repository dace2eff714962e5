"""Exercises: the stub is in the notebook, the check, the hints and the solution are here.

    from course_lib.exercises import check, hint, solution

    check("04.2", my_answer)      # one line: passed, what came and what was expected, or still empty
    hint("04.2"), hint("04.2", 2) # gentle first
    solution("04.2")              # only when asked

A chapter's exercises live in `chapter_NN.py`, which is found by its name:

    @exercise("04.2", title="the ramp error", hints=("...", "..."), solution=ramp_error, wrong=[(naive, "came as")])
    def check_04_2(answer):
        same_call(answer, (0.25, -0.5), 0.0)
"""

from .ask import check, hint, solution
from .compare import Empty, Wrong, one_number, same_call, same_choice, same_numbers
from .examine import Verdict, examine
from .registry import Exercise, UnknownExercise, exercise, exercises

__all__ = [
    "Empty",
    "Exercise",
    "UnknownExercise",
    "Verdict",
    "Wrong",
    "check",
    "examine",
    "exercise",
    "exercises",
    "hint",
    "one_number",
    "same_call",
    "same_choice",
    "same_numbers",
    "solution",
]
