"""The 3D models of Sweet Home 3D's libraries (Debian `sweethome3d-furniture`)."""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LIBRARIES = Path("/usr/share/sweethome3d/furniture")  # where Debian's package puts them


@dataclass(frozen=True)
class Model:
    """A 3D model of a library.

    Attributes
    ----------
    library : str
        Name of the library's file, without suffix.
    path : pathlib.PurePosixPath
        Of its .obj in the library; .mtl and textures lie beside it.
    name, category : str
        "Bench", "Exterior".
    size : (float, float, float)
        Width, depth and height, metres.
    """

    library: str
    path: PurePosixPath
    name: str
    category: str
    size: tuple[float, float, float]


def catalogue(path: Path) -> Iterator[Model]:
    """Yield every model of a library, a .sh3f file, that needs no rotation."""
    with zipfile.ZipFile(path) as library:
        text = library.read("PluginFurnitureCatalog.properties").decode("latin-1")
    fields = dict(re.findall(r"^(\w+#\d+)=(.*?)\s*$", text, re.MULTILINE))
    for key, model in fields.items():
        kind, number = key.split("#")
        if kind == "model" and f"modelRotation#{number}" not in fields and model.endswith(".obj"):
            width, depth, height = (float(fields[f"{side}#{number}"]) / 100 for side in ("width", "depth", "height"))
            yield Model(
                path.stem,
                PurePosixPath(model.lstrip("/")),
                fields[f"name#{number}"],
                fields[f"category#{number}"],
                (width, depth, height),
            )
