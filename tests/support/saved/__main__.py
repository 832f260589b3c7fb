"""`python -m support.saved WHERE SEED…` writes the folders of these seeds into WHERE.

Any Python may run it that has transformers (a version with ERNIE 4.5), torch, sentencepiece, protobuf and pytest, with
`tests` on PYTHONPATH.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from support.saved.writing import write_all

if __name__ == "__main__":
    torch.set_num_threads(1)
    write_all(Path(sys.argv[1]), map(int, sys.argv[2:]))
