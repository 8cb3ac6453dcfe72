"""Draw the diagrams of the notebooks: ``python scripts/draw_diagrams.py`` writes docs/sam.svg and docs/unet.svg.

Both lie on a light panel of their own, so that they read alike on light and dark pages.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from sam_nb.palette import PALETTE

DOCS = Path(__file__).parent.parent / "docs"

INK, QUIET, PANEL, EDGE = "#1f2933", "#52606d", "#fcfcfd", "#d5dae0"
BLUE, ORANGE, GREEN, PURPLE, _, RED, _ = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in PALETTE)
FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
SMALL, NORMAL, LARGE = 13, 14.5, 17

# The steps of a layer of the two-way transformer.
TWO_WAY = (
    ("tokens look at", "each other"),
    ("tokens look at", "the image"),
    ("an MLP changes", "each token"),
    ("the image looks", "at the tokens"),
)


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = NORMAL,
    colour: str = INK,
    anchor: str = "middle",
    weight: str = "normal",
) -> str:
    """Return a line of text around, from or up to (x, y), its baseline."""
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def lines(
    x: float,
    y: float,
    rows: Iterable[str],
    *,
    size: float = SMALL,
    colour: str = QUIET,
    anchor: str = "middle",
    apart: float = 17,
) -> str:
    """Return several lines of text, one below the other."""
    return "".join(
        text(x, y + apart * number, row, size=size, colour=colour, anchor=anchor) for number, row in enumerate(rows)
    )


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    *,
    fill: float = 0.13,
    radius: float = 9,
    dashed: bool = False,
    stroke: float = 1.6,
) -> str:
    """Return a rounded rectangle in a colour, its inside in a tint of it."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}"'
    return f'<rect {place} fill="{colour}" fill-opacity="{fill}" stroke="{colour}" stroke-width="{stroke}"{dash}/>'


def arrow(*points: tuple[float, float], colour: str = INK, width: float = 1.8, dashed: bool = False) -> str:
    """Return a line through points (x, y) with a head at the last."""
    (x0, y0), (x, y) = points[-2:]
    length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
    along, across = ((x - x0) / length, (y - y0) / length), (-(y - y0) / length, (x - x0) / length)
    head = 3.2 + 2.6 * width
    base = x - head * along[0], y - head * along[1]
    corners = [
        (x, y),
        (base[0] + 0.45 * head * across[0], base[1] + 0.45 * head * across[1]),
        (base[0] - 0.45 * head * across[0], base[1] - 0.45 * head * across[1]),
    ]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in [*points[:-1], base])
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    shaft = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'
    return shaft + f'<polygon points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in corners)}" fill="{colour}"/>'


def stack(x: float, y: float, side: float, colour: str, *, depth: int = 5, step: int = 5) -> str:
    """Return a block of numbers, as sheets one behind the other with a grid on the first."""
    sheets = []
    for sheet in reversed(range(depth)):
        left, top = x + step * sheet, y - step * sheet
        style = f'fill="{PANEL}" stroke="{colour}" stroke-width="1.3"'
        sheets.append(f'<rect x="{left}" y="{top}" width="{side}" height="{side}" {style}/>')
    sheets.append(f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{colour}" fill-opacity="0.16"/>')
    cell = side / 8
    grid = "".join(f"M{x + cell * n:.2f} {y}v{side}M{x} {y + cell * n:.2f}h{side}" for n in range(1, 8))
    return "".join(sheets) + f'<path d="{grid}" stroke="{colour}" stroke-width="0.5" stroke-opacity="0.6"/>'


def tokens(x: float, y: float, count: int, colour: str, *, side: float = 15, gap: float = 4) -> str:
    """Return a row of tokens, small solid squares."""
    return "".join(box(x + (side + gap) * n, y, side, side, colour, fill=0.75, radius=3) for n in range(count))


def cup(x: float, y: float, width: float, *, masked: str | None = None) -> str:
    """Return a drawing of a cup of coffee on its saucer, 3 wide and 2 high, with one of its parts marked or none.

    The parts are "saucer" (with all that stands on it), "cup" and "coffee".
    """
    parts = ("saucer", "cup", "coffee")
    colours: Sequence[str] = ("#b5533c", "#efe6da", "#6b4226") if masked is None else ("#b9c0c7", "#d9dee3", "#c5cbd1")
    table = "#d9b48a" if masked is None else "#eef1f4"
    if masked is not None:
        colours = [BLUE if number >= parts.index(masked) else colour for number, colour in enumerate(colours)]
    rim = "#8a8f96" if masked is None else "#ffffff"
    shapes = [
        f'<rect width="120" height="80" rx="5" fill="{table}"/>',
        f'<ellipse cx="60" cy="52" rx="50" ry="22" fill="{colours[0]}" stroke="{rim}" stroke-width="0.8"/>',
        f'<path d="M88 30q20 -2 16 12q-3 9 -20 8" fill="none" stroke="{colours[1]}" stroke-width="5.5"/>',
        f'<path d="M30 24h62q-2 26 -18 36h-26q-16 -10 -18 -36z" fill="{colours[1]}"/>',
        f'<ellipse cx="61" cy="24" rx="31" ry="11" fill="{colours[1]}" stroke="{rim}" stroke-width="0.8"/>',
        f'<ellipse cx="61" cy="25.500" rx="24.500" ry="7.600" fill="{colours[2]}"/>',
    ]
    return f'<g transform="translate({x:g} {y:g}) scale({width / 120:.4g})">{"".join(shapes)}</g>'


def plus(x: float, y: float, radius: float = 12) -> str:
    """Return a plus in a circle: two blocks of numbers are added here."""
    r = radius * 0.55
    circle = f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{PANEL}" stroke="{INK}" stroke-width="1.6"/>'
    return circle + f'<path d="M{x - r:g} {y}h{2 * r:g}M{x} {y - r:g}v{2 * r:g}" stroke="{INK}" stroke-width="1.8"/>'


def dot(x: float, y: float, radius: float = 12) -> str:
    """Return a dot in a circle: two lists of numbers are multiplied and summed here."""
    circle = f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{PANEL}" stroke="{INK}" stroke-width="1.6"/>'
    return circle + f'<circle cx="{x}" cy="{y}" r="{radius / 4:g}" fill="{INK}"/>'


def numbered(x: float, y: float, number: int, *rows: str) -> str:
    """Return the lines of an item of a list, its number before them."""
    return text(x, y, str(number), size=SMALL, anchor="start", weight="bold") + lines(
        x + 16, y, rows, anchor="start", colour=INK
    )


def drawing(width: float, height: float, title: str, shapes: Iterable[str]) -> str:
    """Return an SVG document on its panel."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    panel = box(1, 1, width - 2, height - 2, EDGE, radius=14, fill=0)
    panel = panel.replace('fill="' + EDGE + '" fill-opacity="0"', f'fill="{PANEL}"')
    rows = [
        f'{head} font-family="{FONT}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        panel,
        *shapes,
        "</svg>",
    ]
    return "\n".join(rows) + "\n"


def sam() -> str:
    """Return the diagram of SAM, with vit_b's numbers."""
    shapes = [
        text(976, 34, "numbers: vit_b", size=SMALL, colour=QUIET, anchor="end"),
        # Once per image.
        text(24, 34, "once per image, slow", size=LARGE, anchor="start", weight="bold"),
        cup(24, 84, 126),
        text(87, 190, "image", weight="bold"),
        lines(87, 208, ["long side 1024,", "padded to a square"]),
        arrow((154, 126), (184, 126)),
        box(186, 76, 126, 100, BLUE),
        text(249, 116, "image encoder", weight="bold"),
        lines(249, 137, ["vision transformer", "89.7 M parameters"]),
        arrow((314, 126), (344, 126)),
        stack(348, 96, 64, BLUE),
        text(380, 190, "image embedding", weight="bold"),
        lines(380, 208, ["256 × 64 × 64"]),
        # For every prompt.
        f'<path d="M24 250H440" stroke="{EDGE}" stroke-width="1.5"/>',
        text(24, 282, "for every prompt, fast", size=LARGE, anchor="start", weight="bold"),
        cup(40, 312, 94, masked="cup"),
        text(87, 394, "mask", weight="bold"),
        lines(87, 411, ["if there is one"]),
        arrow((140, 343), (184, 343), dashed=True),
        cup(40, 428, 94),
        box(60, 433, 50, 47, RED, fill=0, radius=2, stroke=2.2),
        f'<path d="M85 {447 - 7}v14M{85 - 7} 447h14" stroke="#ffffff" stroke-width="6"/>',
        f'<path d="M85 {447 - 6}v12M{85 - 6} 447h12" stroke="{GREEN}" stroke-width="3.2"/>',
        text(87, 509, "points, box", weight="bold"),
        arrow((140, 459), (184, 459)),
        box(186, 304, 126, 196, ORANGE),
        text(249, 328, "prompt encoder", weight="bold"),
        lines(249, 350, ["three convolutions"]),
        lines(249, 402, ["6 k parameters"]),
        lines(249, 454, ["place (sine, cosine)", "+ kind (learned)"]),
        arrow((314, 343), (344, 343), dashed=True),
        stack(348, 318, 50, ORANGE, depth=4, step=4),
        text(380, 394, "dense prompt", weight="bold"),
        lines(380, 411, ["256 × 64 × 64"]),
        arrow((314, 459), (344, 459)),
        tokens(350, 451, 3, ORANGE),
        text(380, 490, "prompt tokens", weight="bold"),
        lines(380, 507, ["sparse: N × 256"]),
        # What the decoder gets.
        arrow((434, 126), (457, 126)),
        arrow((416, 340), (471, 340), (471, 140)),
        plus(471, 126),
        arrow((485, 126), (519, 126)),
        arrow((410, 459), (519, 459)),
        # Mask decoder.
        box(500, 58, 358, 478, GREEN, fill=0.05, radius=12),
        text(516, 83, "mask decoder", weight="bold", anchor="start", size=LARGE),
        text(844, 83, "4.06 M parameters", size=SMALL, colour=QUIET, anchor="end"),
        box(522, 98, 172, 300, GREEN),
        text(608, 121, "two-way transformer", weight="bold"),
        box(531, 133, 154, 205, GREEN, radius=7, stroke=1.1),
        text(675, 154, "× 2", weight="bold", anchor="end"),
        *(numbered(541, 154 + 49 * number, number + 1, *rows) for number, rows in enumerate(TWO_WAY)),
        lines(608, 362, ["tokens look at the", "image once more"], colour=INK, apart=18),
        tokens(522, 451, 5, PURPLE),
        tokens(522 + 5 * 19, 451, 3, ORANGE),
        arrow((608, 447), (608, 401)),
        lines(608, 489, ["1 + 4 learned tokens,", "for scores and masks,", "and those of the prompt"], apart=16),
        arrow((696, 134), (715, 134)),
        box(717, 102, 126, 64, GREEN),
        text(780, 127, "upscaling × 4", weight="bold"),
        lines(780, 149, ["to 32 × 256 × 256"]),
        arrow((780, 168), (780, 196)),
        dot(780, 210),
        lines(729, 207, ["dot product", "per pixel"]),
        arrow((780, 252), (780, 224)),
        arrow((696, 292), (715, 292)),
        box(717, 254, 126, 80, GREEN),
        text(780, 278, "4 MLPs", weight="bold"),
        lines(780, 299, ["(hypernetworks),", "each to 32 numbers"]),
        arrow((696, 380), (706, 380), (706, 459), (715, 459)),
        box(717, 427, 126, 64, GREEN),
        text(780, 452, "IoU head", weight="bold"),
        lines(780, 474, ["MLP, to 4 scores"]),
        # What comes out.
        text(926, 83, "3 masks", weight="bold"),
        *(cup(876, 94 + 78 * number, 100, masked=part) for number, part in enumerate(("coffee", "cup", "saucer"))),
        arrow((794, 210), (872, 210)),
        lines(926, 350, ["256 × 256, then", "upscaled to the", "image’s size;", "a 4th for prompts", "that are clear"]),
        arrow((845, 459), (872, 459)),
        text(926, 456, "3 scores", weight="bold"),
        lines(926, 475, ["predicted IoU"]),
    ]
    return drawing(1000, 556, "SAM: image encoder, prompt encoder and mask decoder", shapes)


# U-Net's levels from the top: the maps' sides on the way down and on the way up, pixels, and their channels.
LEVELS: tuple[tuple[tuple[int, ...], tuple[int, ...], int], ...] = (
    ((572, 570, 568), (392, 390, 388), 64),
    ((284, 282, 280), (200, 198, 196), 128),
    ((140, 138, 136), (104, 102, 100), 256),
    ((68, 66, 64), (56, 54, 52), 512),
    ((32, 30, 28), (), 1024),
)
DEEPEST = len(LEVELS) - 1
LEFT, APART = 62, 46  # of the first map, and from the middle of a map to the next
TOPS, HEIGHTS = (104, 258, 388, 500, 598), (112, 86, 66, 50, 38)  # of the maps of each level
THICK = {1: 4, 2: 4, 64: 9, 128: 13, 256: 17, 512: 21, 1024: 26}  # of a map, by its channels
CONVOLUTION, SKIP, POOL, UP, LAST = BLUE, "#7b8794", RED, GREEN, PURPLE


def feature_map(x: float, level: int, channels: int, colour: str = BLUE, *, named: bool = True) -> str:
    """Return a map as seen from its edge, around x: as thick as it has channels."""
    thick = THICK[channels]
    place = (x - thick / 2, TOPS[level], thick, HEIGHTS[level])
    shape = box(*place, colour, fill=0.35, radius=1.5, stroke=1.3)
    return shape + (text(x, TOPS[level] - 6, str(channels), size=SMALL) if named else "")


def row(x: float, level: int, channels: Sequence[int], colour: str) -> list[str]:
    """Return the arrows from map to map of a row, whose first is around x; `channels` has those of every map."""
    y = TOPS[level] + HEIGHTS[level] / 2
    shapes = []
    for before, after in pairwise(channels):
        ends = (x + THICK[before] / 2 + 3, y), (x + APART - THICK[after] / 2 - 3, y)
        shapes.append(arrow(*ends, colour=colour, width=2.2))
        x += APART
    return shapes


def contracting(level: int) -> list[str]:
    """Return a level on the way down, and the step to the next."""
    sides, _, channels = LEVELS[level]
    x, first = LEFT + 2 * APART * level, 1 if level == 0 else channels // 2
    floor = TOPS[level] + HEIGHTS[level]
    shapes = [
        feature_map(x, level, first, named=level == 0),
        feature_map(x + APART, level, channels),
        feature_map(x + 2 * APART, level, channels),
        *row(x, level, (first, channels, channels), CONVOLUTION),
    ]
    size = f"{sides[0]}² → {sides[-1]}²"
    if level == DEEPEST:
        return [*shapes, text(x + APART, floor + 18, size, size=SMALL, colour=QUIET)]
    step = arrow((x + 2 * APART, floor + 4), (x + 2 * APART, TOPS[level + 1] - 4), colour=POOL, width=2.2)
    return [*shapes, text(x + 2 * APART - 9, floor + 18, size, size=SMALL, colour=QUIET, anchor="end"), step]


def expanding(level: int) -> list[str]:
    """Return a level on the way up, the step from the one below, and the skip connection that reaches it."""
    _, sides, channels = LEVELS[level]
    x, thick = LEFT + 2 * APART * (2 * DEEPEST - level), THICK[channels]
    middle, floor = TOPS[level] + HEIGHTS[level] / 2, TOPS[level] + HEIGHTS[level]
    start = LEFT + 2 * APART * (level + 1) + thick / 2
    return [
        # Of its first map one half comes from the left and one from below.
        feature_map(x - thick, level, channels, SKIP, named=False),
        feature_map(x, level, channels, named=False),
        text(x - thick / 2, TOPS[level] - 6, str(2 * channels), size=SMALL),
        arrow((start + 3, middle), (x - 1.5 * thick - 3, middle), colour=SKIP, width=2.2),
        arrow((x, TOPS[level + 1] - 22), (x, floor + 4), colour=UP, width=2.2),
        feature_map(x + APART, level, channels),
        feature_map(x + 2 * APART, level, channels),
        *row(x, level, (channels, channels, channels), CONVOLUTION),
        text(x + 9, floor + 18, f"{sides[0]}² → {sides[-1]}²", size=SMALL, colour=QUIET, anchor="start"),
    ]


def unet() -> str:
    """Return the diagram of U-Net, with the numbers of its paper (arXiv 1505.04597, figure 1)."""
    end = LEFT + 2 * APART * (2 * DEEPEST + 1)  # of the expanding path
    legend = (
        (CONVOLUTION, "3 × 3 convolution, ReLU"),
        (POOL, "2 × 2 max pooling: half the side"),
        (UP, "2 × 2 up-convolution: twice the side"),
        (SKIP, "skip connection: copy and crop"),
        (LAST, "1 × 1 convolution: a score for each class"),
    )
    shapes = [
        text(24, 36, "contracting path: what is it?", size=LARGE, anchor="start", weight="bold"),
        text(976, 36, "expanding path: where is it?", size=LARGE, anchor="end", weight="bold"),
        *(shape for level in range(DEEPEST + 1) for shape in contracting(level)),
        *(shape for level in range(DEEPEST) for shape in expanding(level)),
        text(
            (LEFT + end) / 2 - APART / 2, TOPS[0] + HEIGHTS[0] / 2 - 10, "skip connections keep fine detail", size=SMALL
        ),
        text(LEFT, TOPS[0] - 28, "image", weight="bold"),
        feature_map(end + APART, 0, 2, LAST),
        *row(end, 0, (64, 2), LAST),
        text(end + APART, TOPS[0] - 28, "classes", weight="bold"),
    ]
    for number, (colour, words) in enumerate(legend):
        y = 536 + 26 * number
        shapes += [
            arrow((24, y), (54, y), colour=colour, width=2.2),
            text(64, y + 4.5, words, size=SMALL, anchor="start"),
        ]
    notes = [
        "U-Net as in its paper (2015)",
        "numbers on top: channels",
        "numbers below: sides, pixels",
        "(3 × 3 without padding takes 2)",
        "31 M parameters, 23 convolutions",
    ]
    shapes.append(lines(976, 540.5, notes, anchor="end", apart=26))
    return drawing(1000, 664, "U-Net: a contracting path, an expanding path and skip connections", shapes)


def main() -> None:
    """Write both files."""
    (DOCS / "sam.svg").write_text(sam(), encoding="utf-8", newline="\n")
    (DOCS / "unet.svg").write_text(unet(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
