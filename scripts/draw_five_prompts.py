"""Draw the README's picture: the article's five kinds of prompt, each with the mask of `lite` and its IoU."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from sam_nb import Masks, Prompt, Sam, iou, load_ground_truth, load_image, load_sam, show

FIGURE = Path(__file__).parent.parent / "docs" / "five_prompts.jpg"
WIDTH, GAP, TITLE = 8.3, 0.09, 0.24  # inches, at 100 pixels an inch as wide as GitHub's page
DPI = 200  # sharp on screens of twice the density


@dataclass(frozen=True)
class Panel:
    """One kind of prompt on one image.

    Attributes
    ----------
    title : str
    image : str
        A sample's name.
    prompts : dict of str to Prompt
        By what each means: a name of `load_ground_truth`, or two with a minus between them.
    part : (float, float, float, float)
        What is shown of the image, x0, y0, x1, y1.
    """

    title: str
    image: str
    prompts: dict[str, Prompt]
    part: tuple[float, float, float, float]

    @property
    def shape(self) -> float:
        """Width by height."""
        x0, y0, x1, y1 = self.part
        return (x1 - x0) / (y1 - y0)

    def decode(self, sam: Sam) -> tuple[list[Masks], list[float]]:
        """Return the masks of all prompts, and the IoU of each with what it means."""
        ground_truth = load_ground_truth(self.image)
        decoded = sam.decode_batch(sam.encode(load_image(self.image)), list(self.prompts.values()))
        pairs = zip(self.prompts, decoded, strict=True)
        return decoded, [iou(masks.best, _meant(name, ground_truth)) for name, masks in pairs]

    def draw(self, sam: Sam, ax: Axes) -> None:
        """Draw image, masks and prompts, and write kind of prompt, IoU and model above."""
        decoded, values = self.decode(sam)
        show(self.image, decoded, list(self.prompts.values()), around=self.part, ax=ax)
        found = ", ".join(f"{value:.2f}" for value in values)
        ax.set_title(f"{self.title} · IoU {found} · {sam.name}", loc="left", fontsize=8.5, pad=4)


ROWS = (
    (
        Panel("1 · a point", "cat", {"cat": Prompt(points=[(200, 120)])}, (0, 0, 450, 300)),
        Panel("2 · several points", "coffee", {"cup": Prompt(points=[(289, 94), (250, 270)])}, (0, 0, 600, 400)),
        Panel("3 · a box", "astronaut", {"head": Prompt(box=(151, 16, 303, 190))}, (0, 0, 420, 280)),
    ),
    (
        Panel(
            "4 · a box and points",
            "coffee",
            {"cup - coffee": Prompt(points=[(310, 150), (250, 270)], labels=[0, 1], box=(172, 18, 408, 308))},
            (90, 0, 570, 320),
        ),
        Panel(
            "5 · several boxes",
            "street",
            {
                "car": Prompt(box=(41, 158, 1008, 510)),
                "front_wheel": Prompt(box=(257, 364, 403, 510)),
                "rear_wheel": Prompt(box=(834, 334, 960, 461)),
            },
            (0, 60, 1060, 600),
        ),
    ),
)
"""The panels, row by row."""


def main() -> None:
    """Write docs/five_prompts.jpg."""
    sam = load_sam("lite")
    heights = [(WIDTH - GAP * (len(row) - 1)) / sum(panel.shape for panel in row) for row in ROWS]
    total = sum(heights) + (TITLE + GAP) * len(ROWS) - GAP
    figure = plt.figure(figsize=(WIDTH, total))
    top = total
    for row, height in zip(ROWS, heights, strict=True):
        left, top = 0.0, top - TITLE - height
        for panel in row:
            width = panel.shape * height
            panel.draw(sam, figure.add_axes((left / WIDTH, top / total, width / WIDTH, height / total)))
            left += width + GAP
        top -= GAP
    figure.savefig(FIGURE, dpi=DPI, pil_kwargs={"quality": 85})


def _meant(name: str, ground_truth: dict[str, npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    whole, *without = name.split(" - ")
    return ground_truth[whole] & ~np.any([ground_truth[part] for part in without], axis=0)


if __name__ == "__main__":
    main()
