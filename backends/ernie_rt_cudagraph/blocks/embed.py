"""`embed`: one launch, of PyTorch's own."""

from __future__ import annotations

from torch import Tensor

from ernie_rt.contract import Node


def refusal(node: Node) -> str | None:
    """Why it is not run in one go, or None: rows of every width are taken."""
    return None if node.operands["features"] is None else "it looks up rows of one table"


def embed(ids: Tensor, table: Tensor, features: None = None, features_row: None = None) -> Tensor:
    """The block of this name; `ids [N]` are int32 or int64."""
    return table.index_select(0, ids)
