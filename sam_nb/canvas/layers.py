"""What a canvas shows, as small files for the browser, and all of it in one picture where there is no browser."""

import io

import cv2
import numpy as np
from PIL import Image

from sam_nb.draw import outline_width
from sam_nb.palette import BOX, NEGATIVE, POSITIVE

MAX_OBJECTS = 127  # a palette has 256 colours: one for nothing, two for each object


def picture_file(image, view):
    """Return the part of a picture that a view shows, a JPEG in the canvas's size.

    Parameters
    ----------
    image : HxWx3 numpy.ndarray of uint8, RGB
    view : sam_nb.canvas.view.View
    """
    return jpeg(_seen(image, view), quality=90)


def masks_file(painted, view, opacity):
    """Return masks as a PNG for the canvas: a palette with transparency, a few bits a pixel.

    Parameters
    ----------
    painted : list of (HxW numpy.ndarray of bool, (int, int, int))
        Masks and their colours, RGB, the last on top.
    view : sam_nb.canvas.view.View
    opacity : float
        Of the fill, 0 to 1; outlines are opaque.
    """
    picture, alphas = _masks(painted, view, opacity)
    bits = next(bits for bits in (1, 2, 4, 8) if len(alphas) <= 2**bits)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=bytes(alphas), compress_level=1, bits=bits)
    return file.getvalue()


def snapshot(image, view, *, painted, points, box, opacity):
    """Return picture, masks and prompts as one picture in the canvas's size, RGB uint8.

    Parameters
    ----------
    image, view, painted, opacity
        As above.
    points : list of sam_nb.session.Point
    box : sam_nb.session.Box, or None
    """
    masks, alphas = _masks(painted, view, opacity)
    alpha = np.array(alphas)[np.array(masks)][..., None] / 255
    colors = np.array(masks.convert("RGB"))
    picture = np.rint(_seen(image, view) * (1 - alpha) + colors * alpha).astype(np.uint8)
    if box is not None:
        corners = [tuple(map(round, view.to_canvas(*corner))) for corner in ((box.x0, box.y0), (box.x1, box.y1))]
        cv2.rectangle(picture, *corners, (255, 255, 255), 4)
        cv2.rectangle(picture, *corners, BOX, 2)
    for point in points:
        place = tuple(map(round, view.to_canvas(point.x, point.y)))
        cv2.circle(picture, place, 10, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(picture, place, 8, POSITIVE if point.label else NEGATIVE, -1, cv2.LINE_AA)
        kind = cv2.MARKER_CROSS if point.label else cv2.MARKER_TILTED_CROSS
        cv2.drawMarker(picture, place, (255, 255, 255), kind, 9, 2, cv2.LINE_AA)
    return picture


def jpeg(picture, quality=85):
    """Return a picture, HxWx3 uint8 RGB, as the bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _seen(image, view):
    size = (view.canvas_width, view.canvas_height)
    if view.scale < 1:
        # warpAffine would skip pixels: shrink properly first, then shift.
        shrunk = cv2.resize(image, None, fx=view.scale, fy=view.scale, interpolation=cv2.INTER_AREA)
        shift = np.array([[1, 0, -view.left * view.scale], [0, 1, -view.top * view.scale]])
        return cv2.warpAffine(shrunk, shift, size, borderMode=cv2.BORDER_REPLICATE)
    # From close by a reader wants to see the pixels themselves.
    flags = cv2.INTER_LINEAR if view.scale < 4 else cv2.INTER_NEAREST
    return cv2.warpAffine(image, view.affine(), size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _masks(painted, view, opacity):
    """Return the masks as a picture with a palette, and the alpha of each of its colours, 0 to 255."""
    size = (view.canvas_width, view.canvas_height)
    layer = np.zeros((view.canvas_height, view.canvas_width), np.uint8)
    palette, alphas = [0, 0, 0], [0]
    for mask, color in painted[-MAX_OBJECTS:]:
        seen = cv2.warpAffine(mask.astype(np.uint8), view.affine(), size, flags=cv2.INTER_NEAREST)
        layer[seen > 0] = len(alphas)
        contours, _ = cv2.findContours(seen, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(layer, contours, -1, len(alphas) + 1, outline_width(*layer.shape))
        palette += [*color, *color]
        alphas += [round(255 * opacity), 255]
    picture = Image.fromarray(layer, "P")
    picture.putpalette(palette)
    return picture, alphas
