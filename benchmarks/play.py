"""How long the notebooks' figures to play with take to be drawn again: ``python benchmarks/play.py``.

Prints a table: each figure, and the median and the slowest of twenty movements of its first control, after one to warm
up. The cells that a figure needs are taken from its notebook. The kernel's part alone: the page shows what it gets.
"""

import contextlib
import io
import os
import statistics
import sys
import time
from pathlib import Path

import matplotlib as mpl
import measure
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import course

from sam_nb import Prompt

MOVEMENTS = 20


def player_of(path, index):
    """Return the player that a notebook's cell makes; `index` counts all cells, as `course.players` does."""
    cells = course.read(path)[: index + 1]
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    names = {"play": None}
    # Notebook 08 switches gradients off for its kernel; 10 and 11 train.
    with torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
        for before in course.needed(sources, len(sources) - 1)[:-1]:
            exec(sources[before], names)
        made = []
        play = names["play"]
        names["play"] = lambda *given, **controls: made.append(play(*given, **controls)) or made[-1]
        exec(sources[-1], names)
    return made[0]


def movements(player):
    """Yield what to set, again and again: the first slider or choice there is, or a prompt that wanders."""
    for number in range(MOVEMENTS + 1):
        for name, widget in player.controls.items():
            if hasattr(widget, "max"):
                share = (0.2, 0.5, 0.8)[number % 3]
                yield {name: type(widget.value)(widget.min + share * (widget.max - widget.min))}
                break
            if hasattr(widget, "options") and len(widget.options) > 1:
                yield {name: widget.options[number % len(widget.options)]}
                break
        else:
            name, prompt = next((n, v) for n, v in player.values.items() if isinstance(v, Prompt))
            shift = (-3, 4, -1)[number % 3]
            points = None if prompt.points is None else prompt.points + shift
            box = None if prompt.box is None else prompt.box + np.array([shift, shift, shift, shift])
            yield {name: Prompt(points=points, labels=prompt.labels, box=box)}


def main(write):
    """Measure all figures and print the table."""
    mpl.use("Agg")
    os.environ["SAM_NB_MODEL"] = "lite"
    rows = []
    for path in course.NOTEBOOKS:
        for index in course.players(path):
            player, times = player_of(path, index), []
            for values in movements(player):
                started = time.perf_counter()
                player.set(**values)
                times.append(1000 * (time.perf_counter() - started))
            words = player.title.split(" · ")[0]
            rows.append((path.stem, words, f"{statistics.median(times[1:]):.0f}", f"{max(times[1:]):.0f}"))
    about = f"Each figure of the notebooks is moved {MOVEMENTS} times, `lite`, {measure.machine('ipywidgets')}"
    measure.report("play", ["notebook", "figure", "median, ms", "slowest, ms"], rows, about, write)


if __name__ == "__main__":
    main(measure.parser(__doc__).parse_args().write)
