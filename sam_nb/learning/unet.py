"""U-Net, semantic segmentation as it was before prompts: each pixel gets one of the classes of the training images.

The network is that of Ronneberger, Fischer and Brox (2015, arXiv 1505.04597) with the changes that are usual today: its
convolutions are padded, so that the output has the size of the image; each is followed by batch normalisation (Ioffe
and Szegedy, 2015, arXiv 1502.03167), with which it learns in fewer steps; and it is narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from sam_nb.images import load_image
from sam_nb.learning.decoder_step import one_cycle
from sam_nb.prompts import checked_integer, checked_number

if TYPE_CHECKING:
    from sam_nb.images import ImageLike


class UNet(nn.Module):
    """A contracting path, an expanding path, and skip connections from each level of the one to that of the other.

    Parameters
    ----------
    classes : int
        Without the background.
    width : int
        Channels of the first level; each level further down has twice as many (the paper: 64).
    depth : int
        How many times the image is halved.
    """

    def __init__(self, classes: int, width: int = 12, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.contracting = nn.ModuleList(map(_two_convolutions, [3, *widths[:-2]], widths[:-1]))
        self.bottom = _two_convolutions(*widths[-2:])
        self.upsampling = nn.ModuleList(nn.ConvTranspose2d(2 * each, each, 2, stride=2) for each in widths[-2::-1])
        self.expanding = nn.ModuleList(_two_convolutions(2 * each, each) for each in widths[-2::-1])
        self.last = nn.Conv2d(width, 1 + classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a score for each class and pixel, Bx(1+classes)xHxW float, from images Bx3xHxW of any size."""
        height, width = x.shape[-2:]
        unit = 2 ** len(self.contracting)
        x = F.pad(x, (0, -width % unit, 0, -height % unit))
        skipped = []
        for convolutions in self.contracting:
            x = convolutions(x)
            skipped.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for upscale, convolutions in zip(self.upsampling, self.expanding, strict=True):
            x = convolutions(torch.cat([skipped.pop(), upscale(x)], dim=1))
        return self.last(x)[..., :height, :width]

    def predict(self, image: ImageLike) -> npt.NDArray[np.int64]:
        """Return the class of each pixel, HxW int64, 0 for background, in evaluation mode (`train_unet` leaves it so).

        Parameters
        ----------
        image : HxWx3 numpy.ndarray of uint8, RGB
            Or anything else that `load_image` takes.
        """
        pixels = _as_input(load_image(image)[None]).to(self.last.weight.device)
        with torch.no_grad():
            return self(pixels)[0].argmax(0).cpu().numpy()


def train_unet(
    pairs: Sequence[tuple[ImageLike, npt.ArrayLike]],
    classes: int,
    *,
    steps: int = 120,
    batch_size: int = 2,
    lr: float = 6e-3,
    width: int = 12,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, float, UNet], object] | None = None,
) -> UNet:
    """Train a U-Net from random initialization, with a progress bar.

    Parameters
    ----------
    pairs : sequence of (image, HxW array-like of int)
        Images, anything that `load_image` takes, all of one size, and their class maps: 0 is background, 1 the first
        class.
    classes : int
        Without the background.
    steps : int
    batch_size : int
        Images in each step, some of them mirrored.
    lr : float
        The highest learning rate, of AdamW; it rises to it over the first tenth and falls to zero.
    width : int
        As in `UNet`.
    seed : int
        The same seed gives the same network, on the same machine.
    device : str or torch.device
    on_step : callable, optional
        Called after each step with its number, from 1, the loss of its batch, and the network as it is now, in
        evaluation mode, so that it predicts. Looking does not change what is learned.

    Returns
    -------
    UNet

    Raises
    ------
    ValueError
        There are no pairs, images or maps differ in size, or a map has other numbers than 0 to `classes`. A number is
        not an integer of 1 or more (the seed: of 0 or more), or `lr` not a number above 0. The loss is NaN or infinite.
    """
    classes = checked_integer(classes, "classes", 1)
    steps = checked_integer(steps, "steps", 1)
    batch_size = checked_integer(batch_size, "batch_size", 1)
    width = checked_integer(width, "width", 1)
    seed = checked_integer(seed, "seed", 0)
    lr = checked_number(lr, "lr", above=0)
    images, maps = _stack(pairs, classes)
    # As in the paper rare classes count more, here by the square root: most pixels are background.
    shares = np.bincount(maps.ravel(), minlength=1 + classes) / maps.size
    weights = torch.from_numpy(1 / np.sqrt(shares.clip(min=1e-4))).float().to(device)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unet = UNet(classes, width).to(device)
    optimizer = torch.optim.AdamW(unet.parameters())
    schedule = one_cycle(optimizer, lr, steps)
    with tqdm(range(steps), unit="step", desc="U-Net") as bar:
        for step in bar:
            chosen = rng.integers(len(images), size=batch_size)
            flip = np.s_[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
            scores = unet(_as_input(images[chosen][flip]).to(device))
            ground_truth = torch.from_numpy(maps[chosen][flip].copy()).to(device)
            loss = F.cross_entropy(scores, ground_truth, weights)
            if not torch.isfinite(loss):
                raise ValueError(f"the training diverged: the loss is {loss.item()}; try a lower lr than {lr:g}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if on_step is not None:
                on_step(step + 1, loss.item(), unet.eval())
                unet.train()
    return unet.eval()


def _two_convolutions(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, width):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def _as_input(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return images BxHxWx3 of uint8 as Bx3xHxW float32 around zero."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(128) - 1)


def _stack(
    pairs: Sequence[tuple[ImageLike, npt.ArrayLike]], classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images BxHxWx3 and class maps BxHxW, checked."""
    if not len(pairs):
        raise ValueError("no pairs: expected at least one (image, class map)")
    images, maps = [load_image(image) for image, _ in pairs], [np.asarray(each) for _, each in pairs]
    for number, (image, each) in enumerate(zip(images, maps, strict=True)):
        if each.shape != image.shape[:2] or image.shape != images[0].shape:
            raise ValueError(
                f"pair {number}: the image is {image.shape[:2]} and its class map {each.shape}, expected both to be "
                f"{images[0].shape[:2]} (height, width), as the first image"
            )
        if not np.isin(each, range(classes + 1)).all():
            raise ValueError(f"pair {number}: expected classes 0 to {classes}, got {np.unique(each).tolist()}")
    return np.stack(images), np.stack(maps).astype(np.int64)
