"""Sliders for everything-mode: what each threshold leaves, without decoding anything again."""

import cv2
import ipywidgets

from sam_nb.canvas.layers import jpeg
from sam_nb.draw import overlay_records
from sam_nb.model.everything import select

WIDTH = 800  # pixels of the picture


class MaskSliders(ipywidgets.VBox):
    """A picture with the masks that the three sliders above it leave.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    records : list of dict
        From `segment_everything` with thresholds as loose as the sliders should go, and masks as HxW bool.
    model : str
        Name of the model that made them, for the line below the sliders.
    pred_iou_thresh, stability_score_thresh, box_nms_thresh : float
        Where the sliders begin; as in `segment_everything`.

    Attributes
    ----------
    selected : list of dict
        The records that are left, best first.
    """

    def __init__(self, image, records, model, *, pred_iou_thresh=0.88, stability_score_thresh=0.95, box_nms_thresh=0.7):
        self._image, self._records, self._model = image, records, model
        starts = {
            "pred_iou_thresh": ("predicted IoU above", pred_iou_thresh),
            "stability_score_thresh": ("stability from", stability_score_thresh),
            "box_nms_thresh": ("boxes overlap up to", box_nms_thresh),
        }
        look = {"style": {"description_width": "11em"}, "layout": {"width": "38em", "max_width": "100%"}}
        self.sliders = {
            name: ipywidgets.FloatSlider(start, min=0, max=1, step=0.01, description=words, **look)
            for name, (words, start) in starts.items()
        }
        self._status = ipywidgets.Label()
        self._picture = ipywidgets.Image(format="jpeg", layout={"max_width": "100%"})
        for slider in self.sliders.values():
            slider.observe(lambda _: self._draw(), "value")
        super().__init__([*self.sliders.values(), self._status, self._picture])
        self._draw()

    def _draw(self):
        self.selected = select(self._records, **{name: slider.value for name, slider in self.sliders.items()})
        self._status.value = f"masks: {len(self.selected)} of {len(self._records)} · {self._model}"
        picture = overlay_records(self._image, self.selected)
        scale = min(1, WIDTH / picture.shape[1])
        self._picture.value = jpeg(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
