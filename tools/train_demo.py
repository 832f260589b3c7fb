"""Train the demo model (see tools/demo/README.md): python tools/train_demo.py OUT"""

from __future__ import annotations

from demo.train import main

if __name__ == "__main__":
    main()
