"""Sliders for everything-mode: what each threshold keeps, without decoding again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import ipywidgets
import numpy as np

from sam_nb.canvas.layers import encode_jpeg
from sam_nb.draw import overlay_records
from sam_nb.images import load_image
from sam_nb.model.everything import Record, select

if TYPE_CHECKING:
    from sam_nb.images import ImageLike
    from sam_nb.model.sam import Sam

MAX_WIDTH = 800  # of the image, pixels


class MaskSliders(ipywidgets.VBox):
    """An image with the masks that the three sliders above it keep.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
        Or anything else that `load_image` takes.
    records : sequence of dict
        From `segment_everything` with thresholds as loose as the sliders should go, and masks as HxW bool.
    sam : Sam
        The model that made them: its name stands below the sliders.
    pred_iou_thresh, stability_score_thresh, box_nms_thresh : float, optional
        Where the sliders begin; as in `segment_everything`. Default: `sam.thresholds`.

    Attributes
    ----------
    selected : list of dict
        The records that are kept, highest-scoring first.
    sliders : dict of str to ipywidgets.FloatSlider
        By the threshold's name.
    """

    def __init__(
        self,
        image: ImageLike,
        records: Sequence[Record],
        sam: Sam,
        *,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        box_nms_thresh: float | None = None,
    ) -> None:
        self._image, self._records, self._model = load_image(image), list(records), sam.name
        self.selected: list[Record] = []
        suits = sam.thresholds
        starts = {
            "pred_iou_thresh": ("predicted IoU above", pred_iou_thresh, suits.pred_iou_thresh),
            "stability_score_thresh": ("stability from", stability_score_thresh, suits.stability_score_thresh),
            "box_nms_thresh": ("boxes overlap up to", box_nms_thresh, suits.box_nms_thresh),
        }
        look = {"style": {"description_width": "11em"}, "layout": {"width": "38em", "max_width": "100%"}}
        self.sliders = {
            name: ipywidgets.FloatSlider(
                default if start is None else start, min=0, max=1, step=0.01, description=words, **look
            )
            for name, (words, start, default) in starts.items()
        }
        self._status = ipywidgets.Label()
        self._overlay = ipywidgets.Image(format="jpeg", layout={"max_width": "100%"})
        for slider in self.sliders.values():
            slider.observe(lambda _: self._draw(), "value")
        super().__init__([*self.sliders.values(), self._status, self._overlay])
        self._draw()

    def _draw(self) -> None:
        self.selected = select(self._records, **{name: slider.value for name, slider in self.sliders.items()})
        self._status.value = f"masks: {len(self.selected)} of {len(self._records)} · {self._model}"
        overlay = overlay_records(self._image, self.selected)
        scale = min(1, MAX_WIDTH / overlay.shape[1])
        fitted = cv2.resize(overlay, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._overlay.value = encode_jpeg(fitted.astype(np.uint8, copy=False))
