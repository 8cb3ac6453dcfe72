"""The colours of figures, canvas and files, safe for colour-blind readers."""

Color = tuple[int, int, int]
"""RGB, each from 0 to 255."""

PALETTE: tuple[Color, ...] = (
    (30, 144, 255),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),
)
"""Colours of objects, RGB: SAM's customary dodger blue, then Okabe and Ito's, which colour-blind readers tell apart."""

POSITIVE: Color = (0, 158, 115)  # bluish green; drawn as a plus
NEGATIVE: Color = (213, 94, 0)  # vermilion; drawn as a cross
BOX: Color = (0, 158, 115)

MISSING: Color = (230, 159, 0)  # orange: in the ground truth, not in the mask
EXTRA: Color = (204, 121, 167)  # pink: in the mask, not in the ground truth
CORRECT: Color = (215, 215, 215)  # in a legend: where both agree, the image is bright
