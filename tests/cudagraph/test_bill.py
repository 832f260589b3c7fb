"""What a model will take, told before anything of it is allocated."""

from __future__ import annotations

from ernie_rt.build import build
from ernie_rt.contract import Limits, Target
from ernie_rt_cudagraph.backend import CudaGraphBackend
from support.configs import small


def test_logits_of_the_largest_graph_and_what_experts_leave() -> None:
    config = small(model_type="ernie4_5_moe", moe_num_experts=8, moe_k=3)
    assert config.moe is not None
    model = build(config, CudaGraphBackend(), Target(("cpu",), "bfloat16"))
    report = model.bill(Limits(64, max_sequences=5, max_batch_tokens=20))
    logits = 6 * config.vocab_size * 4  # five sequences take the graph of six
    experts = 20 * 3 * (config.hidden_size + config.moe.moe_intermediate_size) * 2
    assert report.workspace_bytes == logits + experts
