"""Figures for notebooks: `show` and `show_row`, `score` against the ground truth, and the article's three helpers."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch, Rectangle

from sam_nb.draw import comparison, outline_width, overlay, overlay_records
from sam_nb.masks import Masks, as_mask, iou
from sam_nb.palette import BOX, EXTRA, MISSING, NEGATIVE, PALETTE, POSITIVE

WIDTH = 8  # inches, what fits a notebook's column


def show(image, masks=None, prompt=None, *, ground_truth=None, title=None, around=None, ax=None):
    """Draw a picture with masks and prompts on it. The title names the model that made the masks.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    masks : Masks, sequence of Masks, or HxW numpy.ndarray of bool, optional
        Of a `Masks` the best-scored mask is drawn; of several, each in its own colour.
    prompt : Prompt or sequence of Prompt, optional
        A green plus is a click on the object, an orange cross a click off it, a green frame a box.
    ground_truth : HxW numpy.ndarray of bool, optional
        The title then tells the IoU with it instead of the model's own guess.
    title : str, optional
        Words before the score and the model's name.
    around : (float, float, float, float), optional
        Show only this part of the picture, (x0, y0, x1, y1).
    ax : matplotlib.axes.Axes, optional
        Where to draw. Left out: a figure of its own, shown at once.

    Raises
    ------
    ValueError
        A mask has another size than the picture or the ground truth.
    """
    answers = _as_list(masks)
    bits = [_best(answer) for answer in answers]
    for mask in bits:
        if mask.shape != image.shape[:2]:
            raise ValueError(f"mask and picture differ in size: {mask.shape} and {image.shape[:2]} (height, width)")
    value = iou(bits[0], ground_truth) if len(bits) == 1 and ground_truth is not None else None
    part = _part(image, around)
    axes = ax or _new_axes(part)
    axes.imshow(overlay(image, bits, outline=outline_width(*_size(part))))
    for one in _as_list(prompt):
        _draw_prompt(one, axes)
    _frame(axes, part)
    axes.set_title(_title(answers, value, title), loc="left", fontsize=11)
    if ax is None:
        plt.show()


def show_row(image, answers, prompts=None, *, ground_truth=None, titles=None, around=None):
    """Draw several answers about one picture side by side.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    answers : Masks or sequence of Masks
        One `Masks`: its masks, one a panel (whole, part, subpart). Several: the best mask of each, one a panel.
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
        There are not as many prompts or titles as panels.
    """
    if isinstance(answers, Masks):
        answers = [answers.only(index) for index in range(len(answers))]
    prompts = list(prompts) if isinstance(prompts, list | tuple) else [prompts] * len(answers)
    titles = list(titles) if titles is not None else [None] * len(answers)
    if not len(answers) == len(prompts) == len(titles):
        raise ValueError(f"{len(answers)} panels, but {len(prompts)} prompts and {len(titles)} titles")
    height, width = _size(_part(image, around))
    size = (WIDTH, WIDTH / len(answers) * height / width + 0.5)
    _, axes = plt.subplots(1, len(answers), figsize=size, layout="constrained", squeeze=False)
    for panel, answer, prompt, title in zip(axes[0], answers, prompts, titles, strict=True):
        show(image, answer, prompt, ground_truth=ground_truth, title=title, around=around, ax=panel)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_title(panel.get_title(loc="left"), loc="left", fontsize=9)
    plt.show()


def show_everything(image, records, model, *, title=None, ax=None):
    """Draw the masks that everything-mode found, smaller ones on larger ones, each in the colour of its click's place.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    records : list of dict
        From `segment_everything` or `select`, with ``segmentation`` as HxW bool.
    model : str
        Name of the model that made them, for the title.
    title : str, optional
        Words before the number of masks and the model's name.
    ax : matplotlib.axes.Axes, optional
        Where to draw. Left out: a figure of its own, shown at once.
    """
    part = _part(image, None)
    axes = ax or _new_axes(part)
    axes.imshow(overlay_records(image, records))
    _frame(axes, part)
    words = [title] if title else []
    axes.set_title(" · ".join([*words, f"masks: {len(records)}", model]), loc="left", fontsize=11)
    if ax is None:
        plt.show()


def score(mask, ground_truth, image=None, *, title=None):
    """Draw what is missing and what is too much in a mask, and return its IoU with the ground truth.

    Parameters
    ----------
    mask : Masks or HxW numpy.ndarray of bool
        Of a `Masks`, the best-scored.
    ground_truth : HxW numpy.ndarray of bool
    image : HxWx3 numpy.ndarray of uint8, RGB, optional
        Shown in grey underneath.
    title : str, optional
        Words before the IoU. The model's name is added if `mask` is a `Masks`; if it is an array, name it here.

    Returns
    -------
    float
        Intersection over union, rounded to two decimals.

    Raises
    ------
    ValueError
        The sizes differ, or this is not a mask.
    """
    bits, ground_truth = _best(mask), as_mask(ground_truth, "ground_truth")
    value = iou(bits, ground_truth)
    if image is None:
        image = np.full((*bits.shape, 3), 128, dtype=np.uint8)
    part = _part(image, None)
    axes = _new_axes(part)
    axes.imshow(comparison(bits, ground_truth, image))
    missing, extra = np.count_nonzero(ground_truth & ~bits), np.count_nonzero(bits & ~ground_truth)
    legend = [
        Patch(color=np.array(MISSING) / 255, label=f"missing, {missing:,} pixels"),
        Patch(color=np.array(EXTRA) / 255, label=f"too much, {extra:,} pixels"),
    ]
    axes.legend(handles=legend, loc="upper left", fontsize=9)
    _frame(axes, part)
    axes.set_title(_title([mask], value, title), loc="left", fontsize=11)
    plt.show()
    return round(value, 2)


def show_mask(mask, ax, random_color=False):
    """Lay a mask over the axes, as the article's helper of this name does.

    Parameters
    ----------
    mask : HxW or 1xHxW numpy.ndarray or torch.Tensor on the CPU, bool
    ax : matplotlib.axes.Axes
    random_color : bool
        A colour by chance (seed it with `numpy.random.seed`) in place of dodger blue; both at 60 % opacity.
    """
    # The global generator, so that the article's readers can seed it as they know.
    rgb = np.random.random(3) if random_color else np.array(PALETTE[0]) / 255  # noqa: NPY002
    ax.imshow(as_mask(mask)[:, :, None] * np.append(rgb, 0.6))


def show_points(coords, labels, ax, marker_size=375):
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
    coords, labels = np.asarray(coords), np.asarray(labels)
    for label, color in ((1, "green"), (0, "red")):
        x, y = coords[labels == label].T
        ax.scatter(x, y, color=color, marker="*", s=marker_size, edgecolor="white", linewidth=1.25)


def show_box(box, ax):
    """Draw a box in green, as the article's helper of this name does.

    Parameters
    ----------
    box : 4 numpy.ndarray or torch.Tensor on the CPU
        (x0, y0, x1, y1) in pixels.
    ax : matplotlib.axes.Axes
    """
    x0, y0, x1, y1 = (float(side) for side in box)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor="green", facecolor="none", linewidth=2))


def _as_list(value):
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _best(answer):
    return answer.best if isinstance(answer, Masks) else as_mask(answer)


def _part(image, around):
    height, width = image.shape[:2]
    return (-0.5, -0.5, width - 0.5, height - 0.5) if around is None else around


def _size(part):
    left, top, right, bottom = part
    return bottom - top, right - left


def _new_axes(part):
    height, width = _size(part)
    # Portraits are drawn narrower, so that no figure is taller than a screen.
    scale = min(WIDTH / width, 5.5 / height)
    _, axes = plt.subplots(figsize=(width * scale, height * scale + 0.6), layout="constrained")
    return axes


def _draw_prompt(prompt, axes):
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        for color, width in (("white", 3.5), (np.array(BOX) / 255, 2)):
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, edgecolor=color, facecolor="none", linewidth=width))
    if prompt.points is not None:
        inches = axes.get_position().width * axes.figure.get_size_inches()[0]
        size = 30 + 12 * min(inches, WIDTH)  # square points: smaller in a panel of a row
        for label, marker, color in ((1, "P", POSITIVE), (0, "X", NEGATIVE)):
            x, y = prompt.points[prompt.labels == label].T
            style = {"marker": marker, "color": np.array(color) / 255, "edgecolor": "white", "linewidth": 1.2}
            axes.scatter(x, y, s=size, zorder=3, **style)


def _frame(axes, part):
    left, top, right, bottom = part
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.tick_params(labelsize=8, colors="0.45", length=2)
    axes.spines[:].set_visible(False)


def _title(answers, value, title):
    words = [title] if title else []
    if value is not None:
        words.append(f"IoU {value:.2f}")
    elif len(answers) == 1 and isinstance(answers[0], Masks):
        words.append(f"predicted IoU {answers[0].scores.max():.2f}")
    words += sorted({answer.model for answer in answers if isinstance(answer, Masks)})
    return " · ".join(words)
