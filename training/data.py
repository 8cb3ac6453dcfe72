"""Training samples: a scene, some of its targets and a first prompt for each, in the sizes that the network sees."""

from typing import Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from sam_nb.networks.lite import LOW_RES_STRIDE
from training.meanings import MEANINGS, meanings_of
from training.prompts import first_prompt
from training.scenes import Scene

MAX_POINTS = 3  # of a first prompt


class SceneSource(Protocol):
    """What draws scenes: `training.scenes.Composer`, `training.photos.PhotoComposer` or `training.photos.Mixed`."""

    def compose(self, rng: np.random.Generator) -> Scene:
        """Return a scene with at least one target."""


class SceneDataset(Dataset[dict[str, torch.Tensor]]):
    """Scenes by number: sample `i` is the same whichever worker draws it, and whenever.

    Parameters
    ----------
    composer : SceneSource
    side : int
        The network's input size, pixels, and the composer's; a multiple of 32.
    prompts : int
        Prompts per scene.
    seed : int
    length : int
        How many samples there are.
    """

    def __init__(self, composer: SceneSource, side: int, prompts: int, seed: int, length: int) -> None:
        self.composer = composer
        self.side = side
        self.prompts = prompts
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a dict of tensors; N is `prompts`, S is `side`, L the side of low-res logits.

        image : 3xSxS uint8, zeros at the right and bottom; size : 2 int64, height and width of what is not padding;
        ground_truth : NxMxLxL uint8, M meanings: the target, what else a lone click on it can mean, zeros;
        points : Nx3x2 float32; labels : Nx3 float32, -1 where there is no point;
        boxes : Nx4 float32, zeros where there is none.
        """
        rng = np.random.default_rng([self.seed, index])
        scene = self.composer.compose(rng)
        height, width = scene.image.shape[:2]
        image = np.zeros((3, self.side, self.side), np.uint8)
        image[:, :height, :width] = scene.image.transpose(2, 0, 1)
        # Few targets are prompted more than once, in different ways.
        targets = (scene.draw(self.prompts, rng) * self.prompts)[: self.prompts]
        low_res = int(self.side / LOW_RES_STRIDE)
        ground_truth = np.zeros((self.prompts, MEANINGS, low_res, low_res), np.uint8)
        points = np.zeros((self.prompts, MAX_POINTS, 2), np.float32)
        labels = np.full((self.prompts, MAX_POINTS), -1, np.float32)
        boxes = np.zeros((self.prompts, 4), np.float32)
        for row, target in enumerate(targets):
            prompt = first_prompt(target, rng)
            count = len(prompt.points)
            masks = [target.mask]
            if count == 1 and prompt.labels[0] == 1 and prompt.box is None:
                masks = meanings_of(target, prompt.points[0], scene.targets, rng)
            for number, mask in enumerate(masks):
                square = np.zeros((self.side, self.side), np.uint8)
                square[:height, :width] = mask * np.uint8(255)
                ground_truth[row, number] = cv2.resize(square, (low_res, low_res), interpolation=cv2.INTER_AREA) > 127
            points[row, :count], labels[row, :count] = prompt.points, prompt.labels
            if prompt.box is not None:
                boxes[row] = prompt.box
        arrays = {"image": image, "size": np.array([height, width]), "ground_truth": ground_truth, "points": points}
        arrays |= {"labels": labels, "boxes": boxes}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def limit_threads(_: int) -> None:
    """Keep a data loader's worker to one thread: it has one core at best."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
