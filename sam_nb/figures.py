"""Figures for notebooks: `show` and `show_row`, `score` against the ground truth, and the article's three helpers."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sam_nb.draw import check_size, comparison, outline_width, overlay, overlay_records
from sam_nb.images import ImageLike, load_image
from sam_nb.masks import Masks, as_mask, iou
from sam_nb.palette import BOX, CORRECT, EXTRA, MISSING, NEGATIVE, PALETTE, POSITIVE, Color
from sam_nb.prompts import Prompt

WIDTH = 8  # inches, as wide as a notebook's column
MAX_HEIGHT = 5.5  # inches: no figure is taller than a screen
DPI = 100  # pixels per inch of what `titled` draws
TITLE_HEIGHT = 28  # pixels above the image

MaskLike = Masks | npt.NDArray[np.bool_]
"""`Masks`, of which the highest-scoring is drawn, or one mask, HxW bool."""

Part = tuple[float, float, float, float]
"""Part of an image: left, top, right, bottom in pixels."""

_T = TypeVar("_T")


def show(
    image: ImageLike,
    masks: MaskLike | Sequence[MaskLike] | None = None,
    prompt: Prompt | Sequence[Prompt] | None = None,
    *,
    ground_truth: npt.NDArray[np.bool_] | None = None,
    title: str | None = None,
    around: Part | None = None,
    ticks: bool = False,
    ax: Axes | None = None,
) -> None:
    """Draw an image with masks and prompts on it. The title names the model that made the masks.

    Parameters
    ----------
    image : image-like
        Anything that `load_image` takes.
    masks : Masks or HxW numpy.ndarray of bool, or a sequence of them, optional
        Of a `Masks`, the highest-scoring mask is drawn. Several get a colour each.
    prompt : Prompt or sequence of Prompt, optional
        A green plus is a click on the object, an orange cross a click off it, a green frame a box.
    ground_truth : HxW numpy.ndarray of bool, optional
        The title then gives the IoU with it in place of the predicted IoU.
    title : str, optional
        Comes before the IoU and the model's name.
    around : (float, float, float, float), optional
        Show only this part of the image, (x0, y0, x1, y1).
    ticks : bool
        Whether the axes count pixels.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure, shown at once.

    Raises
    ------
    ValueError
        A mask differs in size from the image or the ground truth.
    ValueError, FileNotFoundError
        Not an image, as `load_image`.
    """
    pixels = load_image(image)
    given: list[MaskLike] = _as_list(masks)
    bits = [_best(one) for one in given]
    for mask in bits:
        check_size(mask, pixels)
    value = iou(bits[0], ground_truth) if len(bits) == 1 and ground_truth is not None else None
    part = _whole(pixels) if around is None else around
    axes = ax or _new_axes(part)
    axes.imshow(overlay(pixels, bits, outline=outline_width(*_size(part))))
    for one in _as_list(prompt):
        _draw_prompt(one, axes)
    _frame(axes, part, ticks=ticks)
    axes.set_title(_title(given, value, title), loc="left", fontsize=11)
    if ax is None:
        plt.show()


def show_row(
    image: ImageLike,
    masks: Masks | Sequence[MaskLike],
    prompts: Prompt | Sequence[Prompt | None] | None = None,
    *,
    ground_truth: npt.NDArray[np.bool_] | None = None,
    titles: Sequence[str | None] | None = None,
    around: Part | None = None,
) -> None:
    """Draw several masks of one image side by side.

    Parameters
    ----------
    image : image-like
        Anything that `load_image` takes.
    masks : Masks, or sequence of Masks or HxW numpy.ndarray of bool
        One `Masks`: a panel for each of its masks (whole, part, subpart). Several: a panel for the highest-scoring mask
        of each.
    prompts : Prompt or sequence of Prompt, optional
        One for all panels, or one for each.
    ground_truth : HxW numpy.ndarray of bool, optional
        As in `show`.
    titles : sequence of str, optional
        As in `show`, one for each panel.
    around : (float, float, float, float), optional
        As in `show`.

    Raises
    ------
    ValueError
        There is no mask, or the prompts or titles are not as many as the panels. Otherwise as `show`.
    """
    pixels = load_image(image)
    panels = [masks.only(index) for index in range(len(masks))] if isinstance(masks, Masks) else list(masks)
    for_each = list(prompts) if isinstance(prompts, Sequence) else [prompts] * len(panels)
    words = list(titles) if titles is not None else [None] * len(panels)
    if not panels or not len(panels) == len(for_each) == len(words):
        raise ValueError(
            f"{len(panels)} panels, but {len(for_each)} prompts and {len(words)} titles: give one for each"
        )
    height, width = _size(_whole(pixels) if around is None else around)
    size = (WIDTH, WIDTH / len(panels) * height / width + 0.5)
    _, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", squeeze=False)
    for panel, one, prompt, title in zip(axes[0], panels, for_each, words, strict=True):
        show(pixels, one, prompt, ground_truth=ground_truth, title=title, around=around, ax=panel)
        panel.set_title(panel.get_title(loc="left"), loc="left", fontsize=9)
    plt.show()


def show_everything(
    image: ImageLike,
    records: Sequence[Mapping[str, Any]],
    model: str,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> None:
    """Draw the masks of everything-mode, smaller ones on larger ones, each in a colour that its point determines.

    Parameters
    ----------
    image : image-like
        Anything that `load_image` takes.
    records : list of dict
        From `segment_everything` or `select`, with ``segmentation`` as HxW bool.
    model : str
        Name of the model that made them, for the title.
    title : str, optional
        Comes before the number of masks and the model's name.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Default: a new figure, shown at once.
    """
    pixels = load_image(image)
    part = _whole(pixels)
    axes = ax or _new_axes(part)
    axes.imshow(overlay_records(pixels, records))
    _frame(axes, part)
    words = [title] if title else []
    axes.set_title(" · ".join([*words, f"masks: {len(records)}", model]), loc="left", fontsize=11)
    if ax is None:
        plt.show()


def score(
    mask: MaskLike,
    ground_truth: npt.NDArray[np.bool_],
    image: ImageLike | None = None,
    *,
    aim: float | None = None,
    title: str | None = None,
    around: Part | None = None,
) -> float:
    """Draw where a mask misses pixels and has too many, and return its IoU with the ground truth.

    Parameters
    ----------
    mask : Masks or HxW numpy.ndarray of bool
        Of a `Masks`, the highest-scoring.
    ground_truth : HxW numpy.ndarray of bool
    image : image-like, optional
        Anything that `load_image` takes, shown in grey underneath. Default: plain grey.
    aim : float, optional
        The IoU to reach, 0 to 1: a line is printed that says whether it is reached, or not yet.
    title : str, optional
        Comes before the IoU. The model's name is added if `mask` is a `Masks`; if it is an array, name it here.
    around : (float, float, float, float), optional
        Show only this part of the image, (x0, y0, x1, y1). The IoU is that of the whole mask.

    Returns
    -------
    float
        Intersection over union, rounded to two decimals.

    Raises
    ------
    ValueError
        The sizes differ, or one is not a mask.
    ValueError, FileNotFoundError
        Not an image, as `load_image`.
    """
    bits, expected = _best(mask), as_mask(ground_truth, "ground_truth")
    value = iou(bits, expected)
    pixels = np.full((*bits.shape, 3), 128, dtype=np.uint8) if image is None else load_image(image)
    compared = comparison(bits, expected, pixels)
    part = _whole(pixels) if around is None else around
    axes = _new_axes(part)
    axes.imshow(compared)
    counts = {
        "correct": (CORRECT, bits & expected),
        "missing": (MISSING, expected & ~bits),
        "too much": (EXTRA, bits & ~expected),
    }
    legend = [
        Patch(facecolor=_rgb(color), edgecolor="0.6", label=f"{word}, {np.count_nonzero(found):,} pixels")
        for word, (color, found) in counts.items()
    ]
    axes.legend(handles=legend, loc="upper left", fontsize=9)
    _frame(axes, part)
    axes.set_title(_title([mask], value, title), loc="left", fontsize=11)
    plt.show()
    if aim is not None:
        print(_verdict(value, aim))
    return round(value, 2)


def titled(image: ImageLike, title: str) -> npt.NDArray[np.uint8]:
    """Return an image with a title above it, as `show` draws one, HxWx3 uint8 RGB; no figure is shown."""
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(width / DPI, (height + TITLE_HEIGHT) / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    figure.figimage(pixels, 0, 0)
    figure.text(2 / DPI / figure.get_figwidth(), 1 - 7 / (height + TITLE_HEIGHT), title, fontsize=11, va="top")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def show_mask(mask: npt.ArrayLike, ax: Axes, random_color: bool = False) -> None:
    """Lay a mask over the axes, as the article's helper of this name does.

    Parameters
    ----------
    mask : HxW or 1xHxW numpy.ndarray or torch.Tensor on the CPU, bool
    ax : matplotlib.axes.Axes
    random_color : bool
        A random colour (seed it with `numpy.random.seed`) in place of dodger blue; both at 60 % opacity.
    """
    # The global generator, which the article's readers seed with numpy.random.seed.
    rgb = np.random.random(3) if random_color else _rgb(PALETTE[0])  # noqa: NPY002
    ax.imshow(as_mask(mask)[:, :, None] * np.append(rgb, 0.6))


def show_points(coords: npt.ArrayLike, labels: npt.ArrayLike, ax: Axes, marker_size: float = 375) -> None:
    """Mark clicks as the article's helper of this name does: a green star is on the object, a red star off it.

    Parameters
    ----------
    coords : Nx2 numpy.ndarray or torch.Tensor on the CPU
        (x, y) in pixels.
    labels : N numpy.ndarray or torch.Tensor on the CPU
        1 on the object, 0 off it.
    ax : matplotlib.axes.Axes
    marker_size : float
        Area of a star in square points.
    """
    points, classes = np.asarray(coords), np.asarray(labels)
    for label, color in ((1, "green"), (0, "red")):
        x, y = points[classes == label].T
        ax.scatter(x, y, color=color, marker="*", s=marker_size, edgecolor="white", linewidth=1.25)


def show_box(box: npt.ArrayLike, ax: Axes) -> None:
    """Draw a box in green, as the article's helper of this name does.

    Parameters
    ----------
    box : 4 numpy.ndarray or torch.Tensor on the CPU
        (x0, y0, x1, y1) in pixels.
    ax : matplotlib.axes.Axes
    """
    x0, y0, x1, y1 = (float(side) for side in np.asarray(box))
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor="green", facecolor="none", linewidth=2))


def _as_list(value: _T | Sequence[_T] | None) -> list[_T]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]


def _best(masks: MaskLike) -> npt.NDArray[np.bool_]:
    return masks.best if isinstance(masks, Masks) else as_mask(masks)


def _whole(image: npt.NDArray[np.uint8]) -> Part:
    height, width = image.shape[:2]
    return -0.5, -0.5, width - 0.5, height - 0.5


def _size(part: Part) -> tuple[float, float]:
    left, top, right, bottom = part
    return bottom - top, right - left


def _new_axes(part: Part) -> Axes:
    height, width = _size(part)
    scale = min(WIDTH / width, MAX_HEIGHT / height)  # portraits are drawn narrower
    _, axes = plt.subplots(figsize=(width * scale, height * scale + 0.6), layout="constrained")
    return axes


def _draw_prompt(prompt: Prompt, axes: Axes) -> None:
    if prompt.box is not None:
        x0, y0, x1, y1 = map(float, prompt.box)
        for edge, width in (("white", 3.5), (_rgb(BOX), 2.0)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor=edge, facecolor="none", linewidth=width))
    if prompt.points is not None:
        inches = axes.get_position().width * axes.figure.bbox.width / axes.figure.dpi
        size = 30 + 12 * min(inches, WIDTH)  # square points: smaller in a panel of a row
        for label, marker, color in ((1, "P", _rgb(POSITIVE)), (0, "X", _rgb(NEGATIVE))):
            x, y = prompt.points[prompt.labels == label].T
            axes.scatter(x, y, s=size, zorder=3, marker=marker, color=color, edgecolor="white", linewidth=1.2)


def _rgb(color: Color) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it, each channel from 0 to 1."""
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _frame(axes: Axes, part: Part, *, ticks: bool = False) -> None:
    left, top, right, bottom = part
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.spines[:].set_visible(False)
    if ticks:
        axes.tick_params(labelsize=8, colors="0.45", length=2)
    else:
        axes.set_xticks([])
        axes.set_yticks([])


def _verdict(value: float, aim: float) -> str:
    # Compared as they are printed: "0.80, aim 0.80: not yet" would be a riddle.
    reached = round(value, 2) >= round(aim, 2)
    return f"{'reached' if reached else 'not yet'}: IoU {value:.2f}, aim {aim:.2f}"


def _title(masks: Sequence[MaskLike], value: float | None, title: str | None) -> str:
    words = [title] if title else []
    if value is not None:
        words.append(f"IoU {value:.2f}")
    elif len(masks) == 1 and isinstance(masks[0], Masks):
        words.append(f"predicted IoU {masks[0].scores.max():.2f}")
    words += sorted({one.model for one in masks if isinstance(one, Masks)})
    return " · ".join(words)
