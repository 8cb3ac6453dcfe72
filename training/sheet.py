"""A contact sheet of the held-out photographs, to see what weights are measured on: one command."""

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.photos import Labels, PhotoPack, region_mask

WIDTH = 1900  # of the sheet, pixels
HEIGHT = 124  # of a thumbnail
GAP = 4
HEAD = 20  # above a row of thumbnails, for the names of sources
MAX_BYTES = 1_500_000

# RGB, distinct on photographs and from each other; objects take them in turn.
COLOURS = [(255, 60, 60), (60, 220, 60), (90, 150, 255), (255, 220, 0), (255, 80, 255), (0, 230, 230), (255, 150, 40)]


def thumbnail(
    image: npt.NDArray[np.uint8], labels: Labels, objects: list[dict], height: int = HEIGHT
) -> npt.NDArray[np.uint8]:
    """Return a photograph with the outlines of its objects.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8
    labels : HxW numpy.ndarray of uint8 or uint16
    objects : list of dict
        As in `training.photos.Photograph`.
    height : int
        Of the thumbnail, pixels; it keeps the photograph's proportions.

    Returns
    -------
    hxwx3 numpy.ndarray of uint8
    """
    size = max(1, round(image.shape[1] * height / image.shape[0])), height
    # Twice as large first, because an outline of one pixel hides the small objects of a thumbnail.
    double = (2 * size[0], 2 * size[1])
    drawn = cv2.resize(image, double, interpolation=cv2.INTER_AREA)
    labels = cv2.resize(labels, double, interpolation=cv2.INTER_NEAREST)
    for number, annotated in enumerate(objects):
        mask = region_mask(labels, annotated["regions"]).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, COLOURS[number % len(COLOURS)], 2)
    return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)


def sheet(pack: PhotoPack) -> npt.NDArray[np.uint8]:
    """Return all photographs of a pack as thumbnails, source after source, HxWx3 uint8.

    The name of a source is above its first thumbnail and at the beginning of each further row; neighbouring sources
    have bars in different shades of grey.
    """
    numbers = sorted(range(len(pack.photographs)), key=lambda number: pack.photographs[number].name)
    counts = Counter(photograph.source for photograph in pack.photographs)
    shades = {source: (200, 235)[row % 2] for row, source in enumerate(sorted(counts))}
    rows, x, last = [], WIDTH, None
    for number in tqdm(numbers, desc="thumbnails"):
        photograph = pack.photographs[number]
        tile = thumbnail(*pack.read(number), photograph.objects)[:, : WIDTH - 2 * GAP]
        label = f"{photograph.source} ({counts[photograph.source]})" if photograph.source != last else ""
        room = max(tile.shape[1], _text_width(label)) + GAP
        if x + room > WIDTH:
            rows.append(np.full((HEAD + HEIGHT + GAP, WIDTH, 3), 255, np.uint8))
            x, label = GAP, label or photograph.source
            room = max(tile.shape[1], _text_width(label)) + GAP
        rows[-1][:HEAD, x : x + room] = shades[photograph.source]
        cv2.putText(rows[-1], label, (x + 2, HEAD - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        rows[-1][HEAD : HEAD + HEIGHT, x : x + tile.shape[1]] = tile
        x, last = x + room, photograph.source
    return np.concatenate(rows)


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0] + 6


def encode_jpeg(image: npt.NDArray[np.uint8], max_bytes: int = MAX_BYTES) -> bytes:
    """Return an image, HxWx3 uint8 RGB, as a JPEG of the highest quality that fits in `max_bytes`.

    Raises
    ------
    ValueError
        It takes more even at the lowest quality that is worth looking at.
    """
    for quality in range(90, 30, -5):
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        if len(data) < max_bytes:
            return data.tobytes()
    raise ValueError(
        f"sheet: expected a JPEG under {max_bytes} bytes, got {len(data)} at quality {quality}; name fewer packs"
    )


def main() -> None:
    """Draw the sheet: the command `python -m training.sheet`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packs", nargs="+", type=Path, help="of annotated photographs (training.photos)")
    parser.add_argument("--out", type=Path, required=True, help="JPEG to write, under 1.5 MB")
    arguments = parser.parse_args()
    pack = PhotoPack(arguments.packs, "held_out")
    if not pack.photographs:
        parser.error("none of these packs has a held-out photograph: take those that held_out.txt was made from")
    arguments.out.write_bytes(encode_jpeg(sheet(pack)))


if __name__ == "__main__":
    main()
