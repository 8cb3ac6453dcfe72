"""Draw the tables of README.md as bars: ``python benchmarks/charts.py`` writes benchmarks/charts.png.

The numbers are read from README.md, so that chart and tables cannot differ.
"""

import re
from pathlib import Path

import matplotlib.pyplot as plt
from measure import README

CHART = Path(__file__).with_name("charts.png")
OURS, THEIRS = "#0072B2", "#B0B0B0"  # of Okabe and Ito's palette, and grey


def table(name):
    """Return the rows of a table of README.md, lists of str, without the header."""
    text = README.read_text(encoding="utf-8")
    block = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)[1]
    lines = [line for line in block.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def bars(axes, title, rows):
    """Draw horizontal bars; rows are (label, value, whether it is ours)."""
    labels, values, ours = zip(*rows, strict=True)
    drawn = axes.barh(labels, values, color=[OURS if mine else THEIRS for mine in ours], height=0.62)
    numbers = [f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values]
    axes.bar_label(drawn, numbers, padding=3, fontsize=9)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.set_xlim(0, 1.15 * max(values))


def main():
    """Draw and save."""
    encode = [row[1:] for row in table("encode") if row[0] == "vit_b"]
    first = table("first mask")
    many = [row for row in table("decode") if row[1] == "100"]
    everything = {row[0]: row for row in table("everything")[::-1]}
    figure, grid = plt.subplots(3, 2, figsize=(10, 6.6), layout="constrained", height_ratios=(5, 4, 4))
    bars(grid[0, 0], "vit_b: encode one image, s", [(row[0], float(row[1]), "sam_nb" in row[0]) for row in encode])
    bars(grid[0, 1], "... and the memory of it, MB", [(row[0], float(row[6]), "sam_nb" in row[0]) for row in encode])
    bars(
        grid[1, 0],
        "from the start of a kernel to the first mask, s",
        [(row[0].replace(", ", "\n"), float(row[-1]), "," not in row[0]) for row in first],
    )
    names = ("predict", "predict_torch", "decode_batch")
    for axes, row in zip((grid[1, 1], grid[2, 0]), (many[-1], many[0]), strict=True):
        values = [(name, float(cell), name == "decode_batch") for name, cell in zip(names, row[2:5], strict=True)]
        bars(axes, f"{row[0]}: 100 boxes, ms for each", values)
    rows = [
        (f"{model}, {who}", float(row[index]), who == "sam_nb")
        for model, row in everything.items()
        for who, index in (("segment_anything", 2), ("sam_nb", 3))
    ]
    bars(grid[2, 1], "everything-mode, one image, s", rows)
    figure.savefig(CHART, dpi=110)


if __name__ == "__main__":
    main()
