"""A model without a network, whose masks are known; the tests of the canvas use it, and so do their notebooks."""

import threading
import time
from dataclasses import replace

import numpy as np

from sam_nb import Masks


class Discs:
    """A disc around every foreground point, a hole around every background point, and the box.

    Parameters
    ----------
    height, width : int
        Of the picture, pixels.
    radius, hole : float
        Of the discs and of the holes in them, pixels.
    """

    name = "discs"

    def __init__(self, height, width, radius=30, hole=10):
        self.ys, self.xs = np.mgrid[:height, :width]
        self.radius, self.hole = radius, hole
        self.asked = []
        self.wait = 0.0
        self.fails = False
        self.threads = set()

    def encode(self, image, progress=None):
        time.sleep(self.wait)
        return "encoded"

    def decode(self, embedding, prompt):
        assert embedding == "encoded"
        self.asked.append(replace(prompt, mask_input=None))  # not to look like a leak: 256 kB each
        self.threads.add(threading.current_thread().name)
        time.sleep(self.wait)
        if self.fails:
            raise RuntimeError("the model has <no> memory left")
        mask = np.zeros(self.xs.shape, bool)
        points = [] if prompt.points is None else list(zip(prompt.points, prompt.labels, strict=True))
        for (x, y), label in sorted(points, key=lambda pair: -pair[1]):
            near = np.hypot(self.xs - x, self.ys - y) < (self.radius if label else self.hole)
            mask = mask | near if label else mask & ~near
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            mask |= (self.xs >= x0) & (self.xs <= x1) & (self.ys >= y0) & (self.ys <= y1)
        lone = prompt.box is None and prompt.mask_input is None and len(points) == 1
        scores = np.array([0.5, 0.9, 0.7] if lone else [0.8], np.float32)
        logits = np.full((len(scores), 256, 256), 0.3, np.float32)
        return Masks(scores, logits, "discs", mask.shape, lambda index: mask)
