"""Draw the README's picture: the article's five prompts on the street picture, answered by `lite`."""

from pathlib import Path

import matplotlib.pyplot as plt

from sam_nb import Prompt, iou, load_ground_truth, load_image, load_sam, show

PICTURE = Path(__file__).parent.parent / "docs" / "five_prompts.jpg"

WHEEL = (250, 370, 410, 510)
AROUND_WHEEL = (170, 350, 490, 530)
BOXES = {"car": (24, 170, 998, 472), "rear_wheel": (830, 338, 966, 458), "small_window": (720, 209, 772, 258)}


def main():
    """Write docs/five_prompts.jpg."""
    image, ground_truth, sam = load_image("street"), load_ground_truth("street"), load_sam("lite")
    embedding = sam.encode(image)
    single = {
        "1 · point": (Prompt(points=[(500, 375)]), "car"),
        "2 · several points": (Prompt(points=[(500, 375), (184, 359)]), "car"),
        "3 · box": (Prompt(box=(44, 160, 1011, 504)), "car"),
        "4 · box − point": (Prompt(box=WHEEL, points=[(334, 438)], labels=[0]), "tyre"),
    }
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.3), layout="constrained")
    show(image, title="the picture", ax=axes[0, 0])
    for panel, (title, (prompt, name)) in zip(axes.flat[1:], single.items(), strict=False):
        answer = sam.decode(embedding, prompt, multimask_output=False)
        around = AROUND_WHEEL if name == "tyre" else None
        show(image, answer, prompt, ground_truth=ground_truth[name], title=title, around=around, ax=panel)
    prompts = [Prompt(box=box) for box in BOXES.values()]
    answers = sam.decode_batch(embedding, prompts)
    values = ", ".join(
        f"{iou(answer.best, ground_truth[name]):.2f}" for name, answer in zip(BOXES, answers, strict=True)
    )
    show(image, answers, prompts, title=f"5 · several boxes · IoU {values}", ax=axes[1, 2])
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
