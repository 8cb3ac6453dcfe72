"""Draw the README's picture: the article's five prompts on the street image, with the masks of `lite`."""

from pathlib import Path

import matplotlib.pyplot as plt

from sam_nb import iou, load_ground_truth, load_image, load_sam, show
from sam_nb.article import ARTICLE_PROMPTS

FIGURE = Path(__file__).parent.parent / "docs" / "five_prompts.jpg"

AROUND_WHEEL = (170, 350, 490, 530)
# A panel's title -> its prompt's name in ARTICLE_PROMPTS.
SINGLE = {
    "1 · point": "point",
    "2 · several points": "two points",
    "3 · box": "box",
    "4 · box − point": "box and negative point: ring without hub",
}
SEVERAL = ("first of three boxes", "second of three boxes", "third of three boxes")


def main() -> None:
    """Write docs/five_prompts.jpg."""
    image, ground_truth, sam = load_image("street"), load_ground_truth("street"), load_sam("lite")
    embedding = sam.encode(image)
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.3), layout="constrained")
    show(image, title="the image", ax=axes[0, 0])
    for panel, (title, of_article) in zip(axes.flat[1:], SINGLE.items(), strict=False):
        name, prompt = ARTICLE_PROMPTS[of_article]
        masks = sam.decode(embedding, prompt)
        around = AROUND_WHEEL if name == "tyre" else None
        show(image, masks, prompt, ground_truth=ground_truth[name], title=title, around=around, ax=panel)
    names, prompts = zip(*(ARTICLE_PROMPTS[of_article] for of_article in SEVERAL), strict=True)
    decoded = sam.decode_batch(embedding, list(prompts))
    values = ", ".join(f"{iou(masks.best, ground_truth[name]):.2f}" for name, masks in zip(names, decoded, strict=True))
    show(image, decoded, list(prompts), title=f"5 · several boxes · IoU {values}", ax=axes[1, 2])
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
