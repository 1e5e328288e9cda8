"""python -m mi_pruner_cuda demo | prune | calibrate | models | info, which is also the program
mipruner (pyproject.toml)."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m mi_pruner_cuda"))
