"""Writes the model that mipruner-mtmd --bench is timed with: random weights, real proportions.

    python bench/llama_model.py --llama-source <llama.cpp> --type q8_0 out

writes out/model.gguf, a Llama text model of 24 layers and 1024 columns (430 million parameters),
and out/mmproj.gguf, a tower for 336 x 336 pixels in patches of 14: 576 image tokens. The tower is
tiny, so that what is timed is the text model; --tower large writes one of CLIP ViT-L's size.
llama.cpp's source is needed for its vocabulary; `make test-llama` leaves it in
.venv/llama.cpp/source.
"""

import argparse
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "python_tests" / "llama_cpp"))

from tiny_gguf import KINDS, WEIGHT_TYPES, Shape, Tower, write_mmproj, write_text_model  # noqa: E402

_SHAPE = Shape(columns=1024, layers=24, feed_forward=4096, heads=16, kv_heads=4, pieces=32000)
_TOWERS = {
    "tiny": (Tower(), "f32"),
    "large": (Tower(columns=1024, layers=24, feed_forward=4096, heads=16), "f16"),
}


def write(folder: Path, llama_source: Path, weight_type: str, tower: str, seed: int) -> None:
    """Writes both files of the pair."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = KINDS["llava"]
    model, vision = folder / "model.gguf", folder / "mmproj.gguf"
    write_text_model(kind, model, llama_source, _SHAPE, weight_type, seed)
    sizes, vision_type = _TOWERS[tower]
    write_mmproj(kind, vision, _SHAPE.columns, sizes, vision_type, seed + 1)
    for path in (model, vision):
        print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="made if it is not there")
    parser.add_argument(
        "--llama-source", type=Path, default=_ROOT / ".venv" / "llama.cpp" / "source",
        metavar="FOLDER", help="a folder of llama.cpp's source",
    )  # fmt: skip
    parser.add_argument("--type", choices=WEIGHT_TYPES, default="q8_0", help="of the text model")
    parser.add_argument("--tower", choices=_TOWERS, default="tiny", help="size of the ViT")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    arguments = parser.parse_args()
    if not (arguments.llama_source / "models").is_dir():
        parser.error(
            f"--llama-source: got {arguments.llama_source}, which has no folder models; allowed "
            "is a folder of llama.cpp's source"
        )
    if arguments.seed < 0:
        parser.error(f"--seed: got {arguments.seed}, allowed is 0 or more")
    write(arguments.folder, arguments.llama_source, arguments.type, arguments.tower, arguments.seed)


if __name__ == "__main__":
    main()
