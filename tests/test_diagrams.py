"""The diagrams in docs/ are what their script draws, and say what is so."""

import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "scripts" / "draw_diagrams.py"))


@pytest.mark.parametrize("name", ["sam", "unet"])
def test_the_files_are_what_the_script_draws(name, script):
    drawn = script[name]()
    assert (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8") == drawn
    root = ET.fromstring(drawn)
    left, top, width, height = (float(number) for number in root.get("viewBox").split())
    words = [element for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(words) > 20
    for element in words:
        assert left < float(element.get("x")) < width
        assert top < float(element.get("y")) < height
        assert element.text


def test_the_numbers_of_sam_are_those_of_vit_b(script, random_vit_b):
    drawn = script["sam"]()
    counted = {
        name: sum(parameter.numel() for parameter in part.parameters()) for name, part in random_vit_b.named_children()
    }
    assert f"{counted['image_encoder'] / 1e6:.1f} M parameters" in drawn
    assert f"{counted['mask_decoder'] / 1e6:.2f} M parameters" in drawn
    assert f"{counted['prompt_encoder'] / 1e3:.0f} k parameters" in drawn
    upscaling, heads = random_vit_b.mask_decoder.output_upscaling, random_vit_b.mask_decoder.output_hypernetworks_mlps
    assert (upscaling[3].out_channels, len(heads), heads[0].layers[-1].out_features) == (32, 4, 32)
    assert sum(isinstance(layer, nn.Conv2d) for layer in random_vit_b.prompt_encoder.mask_downscaling) == 3


def test_the_numbers_of_unet_follow_from_its_layers(script):
    """Sides shrink by 2 with every convolution and change by 2 between levels; the parameters are their sum."""
    parameters = count = 0
    before, side = 1, 572

    def layer(channels_in, channels_out, kernel):
        nonlocal parameters, count
        parameters += kernel**2 * channels_in * channels_out + channels_out
        count += 1

    for down, _, channels in script["LEVELS"]:
        assert down == (side, side - 2, side - 4)
        layer(before, channels, 3)
        layer(channels, channels, 3)
        before, side = channels, (side - 4) // 2
    side = down[-1]
    for _, up, channels in script["LEVELS"][-2::-1]:
        assert up == (2 * side, 2 * side - 2, 2 * side - 4)
        for channels_in, kernel in ((2 * channels, 2), (2 * channels, 3), (channels, 3)):
            layer(channels_in, channels, kernel)
        side = up[-1]
    layer(64, 2, 1)
    assert f"{parameters / 1e6:.0f} M parameters, {count} convolutions" in script["unet"]()
