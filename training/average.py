"""Average the weights of runs, one of which continued another: one command.

Weights at the end of a run and weights that it began with lie in one valley of the loss, and their mean often does
better on images of other kinds than either (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv
2109.01903).
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch

from sam_nb.storage import write_bytes


def average(shares: Sequence[tuple[dict[str, torch.Tensor], float]]) -> dict[str, torch.Tensor]:
    """Return the weighted mean of weights, float16, computed in float32.

    Parameters
    ----------
    shares : sequence of (dict of str to torch.Tensor, float)
        Weights of one architecture, and how much each counts; the shares add up to 1.

    Raises
    ------
    ValueError
        The shares do not add up to 1, or the weights are not of one architecture.
    """
    total = sum(share for _, share in shares)
    if not math.isclose(total, 1):
        raise ValueError(f"shares must add up to 1, got {total:g}")
    first = {name: value.shape for name, value in shares[0][0].items()}
    if any({name: value.shape for name, value in weights.items()} != first for weights, _ in shares):
        raise ValueError("the weights differ in names or shapes: only weights of one architecture can be averaged")
    return {name: sum(share * weights[name].float() for weights, share in shares).half() for name in first}


def _path_and_share(entry: str) -> tuple[str, float]:
    path, _, share = entry.rpartition("=")
    return path, float(share)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="safetensors to write")
    parser.add_argument("weights", nargs="+", type=_path_and_share, help="path=share of each")
    arguments = parser.parse_args()
    shares = [(safetensors.torch.load_file(path), share) for path, share in arguments.weights]
    write_bytes(arguments.out, safetensors.torch.save(average(shares)), overwrite=True)


if __name__ == "__main__":
    main()
