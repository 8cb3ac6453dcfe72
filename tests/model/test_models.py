import copy
import pickle

import numpy as np
import pytest
import torch

from sam_nb.masks import iou
from sam_nb.model import loading
from sam_nb.model.embeddings import EmbeddingCache
from sam_nb.model.loading import available_models, load_sam
from sam_nb.model.sam import CHUNKS, Sam, Thresholds, _upscale_logits, fit_to_side
from sam_nb.prompts import Prompt
from sam_nb.weights.checkpoints import CHECKPOINTS


def test_lite_is_what_loads_on_a_first_day(capsys):
    sam = load_sam(device="cpu")
    assert sam.name == "lite"
    line = capsys.readouterr().out
    assert line.startswith("lite: this project's small embedded model, not Meta's SAM, 7.2 M parameters, on cpu.")
    better = 'For better masks: load_sam("vit_t"), a download of 41 MB, or Meta\'s load_sam("vit_b"), 375 MB.\n'
    assert line.endswith(better)
    assert line.count("\n") == 1
    assert repr(sam) == "Sam(lite, 7.2 M parameters, cpu)"


def test_the_environment_variable_decides(monkeypatch):
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    assert load_sam(device="cpu").name == "lite"
    monkeypatch.setenv("SAM_NB_MODEL", "vit_x")
    with pytest.raises(
        ValueError, match=r"no model 'vit_x', set by .* SAM_NB_MODEL: expected one of lite, vit_t, vit_b, vit_l, vit_h"
    ):
        load_sam()


def test_the_models_on_this_computer(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM_NB_HOME", str(tmp_path))
    assert available_models() == ["lite"]
    for name in ("vit_h", "vit_b", "vit_t"):
        CHECKPOINTS[name].path.parent.mkdir(exist_ok=True)
        CHECKPOINTS[name].path.touch()
    assert available_models() == ["lite", "vit_t", "vit_b", "vit_h"]


def test_an_unknown_name():
    with pytest.raises(ValueError, match="no model 'vit_z': expected one of lite"):
        load_sam("vit_z")


def test_lite_reads_its_weights_from_safetensors(tmp_path, lite):
    from sam_nb.networks.lite import WEIGHTS

    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(WEIGHTS.read_bytes())
    assert load_sam(checkpoint=copy, device="cpu").name == "lite"
    copy.write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"\(5,000 bytes\) holds no weights"):
        load_sam(checkpoint=copy, device="cpu")


def test_an_embedding_is_computed_once(lite, photo, tmp_path, monkeypatch):
    def kernel():
        """Return the model as another notebook has it: same weights, same folder, nothing in memory."""
        return Sam(lite.model, lite.name, lite.weights, cache=EmbeddingCache(tmp_path / "embeddings"))

    first = kernel()
    embedding = first.encode(photo)

    def refuse(*args):
        raise AssertionError("encoded again")

    monkeypatch.setattr(lite.model.image_encoder, "forward", refuse)
    assert first.encode(photo) is embedding
    again = kernel().encode(photo)
    assert np.array_equal(again.features, embedding.features)
    for field in ("original_size", "input_size", "model", "weights", "key"):
        assert getattr(again, field) == getattr(embedding, field)
    changed = photo.copy()
    changed[0, 0, 0] ^= 1
    with pytest.raises(AssertionError, match="encoded again"):
        first.encode(changed)
    other = Sam(lite.model, lite.name, "other weights")
    with pytest.raises(AssertionError, match="encoded again"):
        other.encode(photo)
    # The same weights in a version of the package whose encoder saw another size.
    monkeypatch.setattr(lite.model.image_encoder, "img_size", 320)
    with pytest.raises(AssertionError, match="encoded again"):
        first.encode(photo)


def test_a_damaged_embedding_is_computed_again(lite, photo, tmp_path):
    sam = Sam(lite.model, lite.name, lite.weights, cache=EmbeddingCache(tmp_path, in_memory=0))
    embedding = sam.encode(photo)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:99])
    assert np.array_equal(sam.encode(photo).features, embedding.features)
    assert file.stat().st_size > 99


def test_the_cache_is_bounded(lite, photo, tmp_path):
    cache = EmbeddingCache(tmp_path, in_memory=2, on_disk=10_000_000)  # two embeddings of 4.2 MB
    sam = Sam(lite.model, lite.name, lite.weights, cache=cache)
    keys = [sam.encode(np.roll(photo, shift, axis=1)).key for shift in range(4)]
    assert len(list(tmp_path.glob("*"))) == 2
    assert (tmp_path / f"{keys[-1]}.safetensors").exists()
    for path in tmp_path.glob("*"):
        path.unlink()
    assert [cache.get(key) is not None for key in keys] == [False, False, True, True]  # in memory


def test_what_cannot_be_encoded(lite):
    with pytest.raises(ValueError, match="too thin"):
        lite.encode(np.zeros((3000, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="expected floats in"):
        lite.encode(np.full((50, 60, 3), 128.0))


def test_what_cannot_be_decoded(lite, photo):
    embedding = lite.encode(photo)
    with pytest.raises(ValueError, match=r"lies far outside the (?:image|picture), which is 451 wide and 300 high"):
        lite.decode(embedding, Prompt(points=[(900, 20)]))
    with pytest.raises(ValueError, match="lies far outside"):
        lite.decode_batch(embedding, [Prompt(box=(0, 0, 10, 10)), Prompt(box=(0, 0, 10, 900))])
    with pytest.raises(ValueError, match=r"lite expects logits of shape \(1, 256, 256\), got \(1, 64, 64\)"):
        lite.decode(embedding, Prompt(mask_input=-np.ones((64, 64))))
    stranger = Sam(lite.model, "vit_b", "other weights")
    with pytest.raises(ValueError, match="by these weights of vit_b, got one by lite: encode the image again"):
        stranger.decode(embedding, Prompt(points=[(5, 5)]))


def test_one_click_gives_three_masks_and_more_gives_one(lite, photo):
    embedding = lite.encode(photo)
    assert len(lite.decode(embedding, Prompt(points=[(200, 150)]))) == 3
    assert len(lite.decode(embedding, Prompt(points=[(200, 150), (210, 150)]))) == 1
    assert len(lite.decode(embedding, Prompt(box=(20, 20, 300, 280)))) == 1
    assert len(lite.decode(embedding, Prompt(points=[(200, 150)]), multimask_output=False)) == 1


def test_many_prompts_of_many_shapes_come_back_in_order(lite, photo):
    embedding = lite.encode(photo)
    logits = lite.decode(embedding, Prompt(points=[(200, 150)])).logits[0]
    prompts = [
        Prompt(points=[(200, 150)]),
        Prompt(box=(20, 20, 300, 280)),
        Prompt(points=[(100, 100), (300, 20)], labels=[1, 0]),
        Prompt(points=[(300, 150)]),
        Prompt(points=[(200, 150)], mask_input=logits),
        Prompt(points=[(200, 150)], box=(20, 20, 300, 280)),
        Prompt(mask_input=logits),
    ]
    decoded = lite.decode_batch(embedding, prompts)
    assert len(decoded) == len(prompts)
    for prompt, masks in zip(prompts, decoded, strict=True):
        alone = lite.decode(embedding, prompt)
        assert len(masks) == len(alone)
        assert np.allclose(masks.logits, alone.logits, atol=1e-3)
        assert np.mean(masks.bits == alone.bits) > 0.999
    assert lite.decode_batch(embedding, []) == []
    assert [len(masks) for masks in decoded] == [3, 1, 1, 3, 1, 1, 1]
    for several in (True, False):
        decoded = lite.decode_batch(embedding, prompts, multimask_output=several)
        assert [len(masks) for masks in decoded] == [3 if several else 1] * len(prompts)


def test_more_prompts_than_one_pass_takes(lite, photo):
    embedding = lite.encode(photo)
    prompts = [Prompt(points=[(x, 150)]) for x in range(10, 10 + 2 * CHUNKS["cpu"] + 3)]
    decoded = lite.decode_batch(embedding, prompts)
    assert len(decoded) == len(prompts)
    last = lite.decode(embedding, prompts[-1])
    assert np.allclose(decoded[-1].logits, last.logits, atol=1e-3)


def test_masks_are_pickled_whole(lite, photo):
    masks = lite.decode(lite.encode(photo), Prompt(points=[(200, 150)]))
    again = pickle.loads(pickle.dumps(masks))
    assert np.array_equal(again.bits, masks.bits)
    assert np.array_equal(copy.deepcopy(masks).best, masks.best)


def test_thresholds_are_the_architecture_s(lite):
    meta = Thresholds(pred_iou_thresh=0.88, stability_score_thresh=0.95, box_nms_thresh=0.7)
    assert Sam(lite.model, "vit_b", "random").thresholds == meta
    assert lite.thresholds != meta
    assert Sam(lite.model, "lite", "weights of my own").thresholds == lite.thresholds
    assert 0 < lite.max_preview_seconds < 1


def test_an_image_is_fit_to_the_encoder_s_side():
    assert fit_to_side(np.zeros((30, 60, 3), np.uint8), 512).shape == (256, 512, 3)
    assert fit_to_side(np.zeros((1000, 3, 3), np.uint8), 512).shape == (512, 2, 3)
    with pytest.raises(ValueError, match=r"an image of 2x3000 is too thin: resized to 512 pixels"):
        fit_to_side(np.zeros((3000, 2, 3), np.uint8), 512)


def test_bfloat16_gives_nearly_the_same_masks(lite, photo, capsys):
    rough = load_sam("lite", device="cpu", precision="bfloat16")
    assert "in bfloat16" in capsys.readouterr().out
    assert (lite.precision, rough.precision) == ("float32", "bfloat16")
    ours, theirs = rough.encode(photo), lite.encode(photo)
    assert ours.key != theirs.key  # the one is not taken for the other
    assert ours.features.dtype == torch.float32
    assert not torch.equal(ours.features, theirs.features)
    prompt = Prompt(box=(150, 60, 430, 290))
    assert iou(rough.decode(ours, prompt).best, lite.decode(theirs, prompt).best) > 0.9


def test_auto_takes_what_the_hardware_has(monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(loading, "_has_bfloat16", lambda device, able=able: able)
        assert load_sam("lite", device="cpu", precision="auto").precision == "float32"  # nothing to gain
    with pytest.raises(ValueError, match="no precision 'half': expected one of float32, bfloat16, auto"):
        load_sam("lite", precision="half")


def test_auto_on_a_large_model(random_vit_b, tmp_path, monkeypatch):
    torch.save(random_vit_b.state_dict(), tmp_path / "vit_b.pth")
    for able, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(loading, "_has_bfloat16", lambda device, able=able: able)
        assert load_sam(checkpoint=tmp_path / "vit_b.pth", device="cpu", precision="auto").precision == expected


@pytest.mark.parametrize("side", [512, 640, 1024])
@pytest.mark.parametrize("size", [(37, 91), (90, 61), (64, 64)])
def test_logits_are_upscaled_as_upstream_does_at_any_stride(lite, monkeypatch, side, size):
    """At 640 a low-res pixel is 2.5 pixels of the input."""
    monkeypatch.setattr(lite.model.image_encoder, "img_size", side)
    input_size = fit_to_side(np.zeros((*size, 3), np.uint8), side).shape[:2]
    logits = np.random.default_rng(0).normal(size=(3, 256, 256)).astype(np.float32)
    for index in range(3):  # one at a time: with a single thread PyTorch rounds several channels in another way
        (expected,) = lite.model.postprocess_masks(torch.from_numpy(logits[None, [index]]), input_size, size)[0].numpy()
        np.testing.assert_array_equal(_upscale_logits(logits, side, input_size, size, index), expected)
