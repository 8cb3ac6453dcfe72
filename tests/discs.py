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
        Of the image, pixels.
    radius, hole : float
        Of the discs and of the holes in them, pixels.
    sleep : callable
        Takes the seconds that the model pretends to compute.

    Attributes
    ----------
    prompts : list of Prompt
        What was decoded.
    encode_count : int
        How many images were encoded.
    wait : float
        Seconds for encoding and for decoding.
    gate : threading.Event
        While it is cleared, the model goes on computing.
    entered : threading.Event
        Set whenever the model begins to compute.
    """

    name = "discs"
    max_preview_seconds = 0.1

    def __init__(self, height, width, radius=30, hole=10, sleep=time.sleep):
        self.ys, self.xs = np.mgrid[:height, :width]
        self.radius, self.hole = radius, hole
        self.prompts = []
        self.encode_count = 0
        self.wait = 0.0
        self.fails = False
        self.threads = set()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self._sleep = sleep

    def encode(self, image, progress=None):
        self.encode_count += 1
        if progress is not None:
            progress(0.25)
        self._compute()
        return "encoded"

    def decode(self, embedding, prompt):
        assert embedding == "encoded"
        self.prompts.append(replace(prompt, mask_input=None))  # not to look like a leak: 256 kB each
        self.threads.add(threading.current_thread().name)
        self._compute()
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

    def _compute(self):
        self.entered.set()
        assert self.gate.wait(60)
        self._sleep(self.wait)
