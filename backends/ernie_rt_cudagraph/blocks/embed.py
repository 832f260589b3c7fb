"""`embed`: one launch, of PyTorch's own, and three more where some tokens stand for features."""

from __future__ import annotations

import torch
from torch import Tensor

from ernie_rt.contract import Node


def refusal(node: Node) -> str | None:
    """Why it is not run in one go, or None: rows of every width are taken."""
    return None


def embed(ids: Tensor, table: Tensor, features: Tensor | None = None, features_row: Tensor | None = None) -> Tensor:
    """The block of this name; `ids [N]` are int32 or int64. Features are None where no token stands for any, as in
    recorded steps, whatever the graph takes in."""
    rows = table.index_select(0, ids)
    if features is None or features_row is None:
        return rows
    return torch.where(features_row[:, None] > 0, features.index_select(0, features_row), rows)
