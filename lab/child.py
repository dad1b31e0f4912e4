"""The process of one cell of the laboratory: ``python -m lab.child FOLDER``."""

import sys
from pathlib import Path

from lab.protocols import PROTOCOLS
from medfewshot.benchmark.child import main

if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), {name: (one.cell, one.run) for name, one in PROTOCOLS.items()}))
