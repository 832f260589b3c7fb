"""Train the vision-language demo model (see tools/demo_vl/README.md): python tools/train_demo_vl.py OUT"""

from __future__ import annotations

from demo_vl.train import main

if __name__ == "__main__":
    main()
