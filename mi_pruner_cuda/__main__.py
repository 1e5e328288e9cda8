"""python -m mi_pruner_cuda demo | prune | calibrate | models | info"""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
