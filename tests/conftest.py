"""Shared by all tests: a cache folder of their own, no window, one model loaded once."""

import os
import tempfile

import firefox
import lab
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
_HOME = tempfile.TemporaryDirectory(prefix="sam-nb-tests-")
os.environ["SAM_NB_HOME"] = _HOME.name
os.environ.pop("SAM_NB_MODEL", None)
# Of several test processes each computes on its share of the cores, and so do the kernels that it starts: threads that
# outnumber the cores wait for each other. OpenMP reads it when PyTorch, not imported yet, loads it.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _PROCESSES > 1:
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // _PROCESSES))


@pytest.fixture(autouse=True)
def fresh_home(tmp_path, monkeypatch):
    """Give each test an empty cache folder, so that none finds another's embeddings or checkpoints."""
    monkeypatch.setenv("SAM_NB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAM_NB_MODEL", raising=False)


@pytest.fixture(scope="session")
def need_chromium():
    """Skip loudly without a browser, and fail in CI."""
    if lab.find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: the browser tests must run here")
        pytest.skip("NO CHROMIUM FOUND: the browser tests did not run; install chromium or google-chrome")


@pytest.fixture(scope="session")
def need_firefox():
    """Skip loudly without Firefox."""
    if firefox.find_firefox() is None:
        pytest.skip("NO FIREFOX FOUND: its tests did not run; install firefox or firefox-esr")


@pytest.fixture(scope="session")
def lite():
    from sam_nb import load_sam

    return load_sam("lite", device="cpu")


@pytest.fixture(scope="session")
def random_vit_b():
    """Return Meta's vit_b as `segment_anything` builds it, with random weights: the oracle needs no checkpoint."""
    import torch
    from segment_anything import sam_model_registry

    torch.manual_seed(0)
    return sam_model_registry["vit_b"]()


@pytest.fixture(scope="session")
def random_vit_t():
    """Return vit_t with random weights, biases and statistics: those of a new model, 0 and 1, would hide mistakes."""
    import torch

    from sam_nb.networks.tiny_vit import build_vit_t

    torch.manual_seed(0)
    model = build_vit_t()
    for name, value in model.image_encoder.state_dict().items():
        if name.endswith("bias") or "attention_biases" in name:
            value.normal_(std=0.5)
        elif name.endswith("running_mean"):
            value.normal_(std=0.3)
        elif name.endswith("running_var") or "norm" in name or name.endswith("bn.weight"):
            value.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def photo():
    """Return an image that is not square and has no symmetry, 300x451x3 uint8."""
    from sam_nb import load_image

    return load_image("cat")


@pytest.fixture
def blob():
    """Return an off-centre ellipse in an image of 60x90, HxW bool."""
    y, x = np.mgrid[:60, :90]
    return ((x - 25) / 15) ** 2 + ((y - 40) / 9) ** 2 < 1


@pytest.fixture
def known_masks():
    """Return a function that makes `Masks` by "lite" out of masks, CxHxW bool, and their scores."""
    from sam_nb import Masks

    def make(bits, scores):
        logits = np.zeros((len(bits), 256, 256), np.float32)
        return Masks(np.array(scores, np.float32), logits, "lite", bits.shape[1:], bits.__getitem__)

    return make
