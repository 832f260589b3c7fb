"""What a model will take, told before anything of it is allocated."""

from __future__ import annotations

from dataclasses import replace

from ernie_rt.build import build
from ernie_rt.contract import Limits, Target
from ernie_rt_cudagraph.backend import CudaGraphBackend
from support import sighted
from support.configs import small


def test_logits_of_the_largest_graph_and_what_experts_leave() -> None:
    config = small(model_type="ernie4_5_moe", moe_num_experts=8, moe_k=3)
    assert config.moe is not None
    model = build(config, CudaGraphBackend(), Target(("cpu",), "bfloat16"))
    report = model.bill(Limits(64, max_sequences=5, max_batch_tokens=20))
    logits = 6 * config.vocab_size * 4  # five sequences take the graph of six
    experts = 20 * 3 * (config.hidden_size + config.moe.moe_intermediate_size) * 2
    assert report.workspace_bytes == logits + experts


def test_of_two_pools_the_one_that_leaves_more() -> None:
    config = sighted.config()
    assert config.moe is not None and config.vision is not None
    wide = replace(config, vision=replace(config.vision, moe_intermediate_size=40))
    bills = [
        build(each, CudaGraphBackend(), Target(("cpu",), "bfloat16")).bill(Limits(64, max_batch_tokens=20))
        for each in (config, wide)
    ]
    more = 20 * config.moe.moe_k * (40 - config.moe.moe_intermediate_size) * 2
    assert bills[1].workspace_bytes - bills[0].workspace_bytes == more
