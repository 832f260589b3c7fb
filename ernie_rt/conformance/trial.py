"""Run a stranger's backend once, on a model of a few thousand parameters, in a child process."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Final

from ernie_rt import hooks
from ernie_rt.discovery import child
from ernie_rt.discovery.installed import Plugin, uninstall
from ernie_rt.errors import PluginError
from ernie_rt.host import PluginHost
from ernie_rt.loading import load
from ernie_rt.location import Located
from ernie_rt.modeling.config import parse_config
from ernie_rt.weights.synthetic import Synthetic

SECONDS: Final = 60.0
"""How long it may take, with the import of what the backend is made of."""

MODEL: Final = {
    "model_type": "ernie4_5_moe",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_intermediate_size": 8,
    "moe_num_shared_experts": 1,
    "moe_layer_start_index": 1,
}


def attempt(plugin: Plugin) -> Plugin:
    """The plugin, with another status and the cause when its backend cannot be constructed, run or closed."""
    try:
        child.call(
            "ernie_rt.conformance.trial:run", plugin.name, plugin.module, seconds=SECONDS, doing="running a small model"
        )
    except PluginError as error:
        return replace(plugin, status="fails when used", cause=error.what, fix=uninstall(plugin.distribution))
    return plugin


def run(name: str, module: str) -> None:
    """Take a few tokens through the model: what the child does."""
    host = PluginHost(entry_points=False, extra=[EntryPoint(name, module, hooks.NAMESPACE).load()])
    located = Located(parse_config(MODEL, "a small model"))
    with load(located, backend=name, weights=Synthetic(), max_context=16, host=host) as model:
        logits = model.logits([1, 2, 3])
    if logits.shape != (3, located.config.vocab_size):
        raise PluginError("returns logits of a wrong shape", expected="(3, 32)", found=logits.shape)
