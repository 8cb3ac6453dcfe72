"""The exercises are open as saved, and the solutions that the notebooks fold away solve them."""

import contextlib
import io

import course
import matplotlib.pyplot as plt
import pytest
import torch

every_notebook = pytest.mark.parametrize("path", course.NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_the_exercises_are_open_as_saved(path):
    exercises = course.exercises(path)
    assert exercises
    for exercise in exercises:
        assert exercise.printed.startswith("not yet"), f"exercise {exercise.number}: {exercise.printed!r}"
        assert exercise.solution is not None, f"exercise {exercise.number} has no folded solution"


@every_notebook
def test_the_folded_solutions_reach_their_aims(path, monkeypatch, tmp_path):
    """The cells that the exercises need run once, in order; each solution runs where its exercise stands."""
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    monkeypatch.chdir(tmp_path)
    sources = [cell.source for cell in course.code_cells(path)]
    exercises = {exercise.index: exercise for exercise in course.exercises(path)}
    names, printed = {}, {}
    with torch.enable_grad():  # notebook 08 switches gradients off for its kernel
        for index in course.needed(sources, *exercises):
            if index in exercises:
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(exercises[index].solved, dict(names))
                printed[exercises[index].number] = out.getvalue()
            with contextlib.redirect_stdout(io.StringIO()):
                exec(sources[index], names)
    plt.close("all")
    assert len(printed) == len(exercises)
    assert all(text.startswith("reached") for text in printed.values()), printed
