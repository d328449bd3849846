"""What jobserver-ffi costs, one file for each question: `python -m benchmarks` answers them all.

Measured is the package that is installed, never the sources that happen to lie beside this folder: so the folder that
`python -m` or pytest put first on the path is taken off it again.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "benchmarks"
PEERS = BUILD / f"peers-{sys.implementation.cache_tag}"

if sys.path and Path(sys.path[0] or ".").resolve() == ROOT:
    del sys.path[0]
sys.path.append(str(PEERS))
