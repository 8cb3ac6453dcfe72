"""The exercises are open as saved, and the solutions that the notebooks fold away solve them."""

import contextlib
import io

import course
import matplotlib.pyplot as plt
import pytest
import torch

EXERCISES = [(path, exercise) for path in course.NOTEBOOKS for exercise in course.exercises(path)]

every_exercise = pytest.mark.parametrize(
    ("path", "exercise"), EXERCISES, ids=[f"{path.stem}-{exercise.number}" for path, exercise in EXERCISES]
)


@every_exercise
def test_an_exercise_is_open_as_saved(path, exercise):
    assert exercise.printed.startswith("not yet"), f"{path.stem}, exercise {exercise.number}: {exercise.printed!r}"


@every_exercise
def test_the_folded_solution_reaches_the_aim(path, exercise, monkeypatch, tmp_path):
    assert exercise.solution is not None, f"{path.stem}: exercise {exercise.number} has no folded solution"
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    monkeypatch.chdir(tmp_path)
    names, printed = {}, io.StringIO()
    with torch.enable_grad():  # notebook 08 switches gradients off for its kernel
        with contextlib.redirect_stdout(io.StringIO()):
            for source in exercise.cells:
                exec(source, names)
        with contextlib.redirect_stdout(printed):
            exec(exercise.solved, names)
    plt.close("all")
    assert printed.getvalue().startswith("reached"), printed.getvalue()


def test_every_notebook_has_exercises():
    assert {path.stem for path, _ in EXERCISES} == {path.stem for path in course.NOTEBOOKS}
