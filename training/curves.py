"""Draw a run's curves from its metrics.jsonl."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

PANELS = {
    "first prompt, IoU": ["box", "point", "point_oracle", "several"],
    "after corrective clicks, IoU": ["click_1", "click_2", "click_3", "click_4"],
    "loss": ["loss"],
    "predicted IoU, mean absolute error": ["iou_error"],
}


def running_mean(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Return the mean of each value and those at most `width` before it, as long as `values`."""
    return np.array([values[max(0, end - width) : end].mean() for end in range(1, len(values) + 1)])


def draw(records: list[dict[str, float]], width: int) -> Figure:
    """Return a figure of all panels.

    Parameters
    ----------
    records : list of dict
        Lines of metrics.jsonl.
    width : int
        Records that the running mean covers.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3.2), layout="constrained")
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in names:
            points = np.array([(record["step"], record[name]) for record in records if name in record])
            if len(points):
                axis.plot(points[:, 0], running_mean(points[:, 1], width), label=name.replace("_", " "))
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        # Below the panel: inside it would hide a curve.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, frameon=False, fontsize=9)
    return figure


def main() -> None:
    """Draw the curves: the command `python -m training.curves`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", type=Path, help="metrics.jsonl of a run")
    parser.add_argument("out", type=Path, help="image to write, .png or .jpg")
    parser.add_argument("--mean", type=int, default=5, help="records that the running mean covers")
    arguments = parser.parse_args()
    # A run resumed from an older checkpoint repeats steps: the later record counts.
    records = {record["step"]: record for record in map(json.loads, arguments.metrics.read_text().splitlines())}
    draw(list(records.values()), arguments.mean).savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
