"""ernie-rt as a model of lm-evaluation-harness: `ernie-rt lm-eval`, and `ernie_rt_lm_eval.model.ErnieRtLM`."""
