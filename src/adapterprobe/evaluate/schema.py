"""The columns of `predictions.parquet` and `layers.parquet`, in their order (contract)."""

COLUMNS = [
    "dataset", "split", "prompt_id", "example_id", "group", "condition", "template", "format", "system_prompt",
    "demo_set", "shots", "form", "known", "axis", "label", "train_axis", "arm", "probe", "layer", "seed", "data_seed",
    "score", "threshold", "recall_known",
]  # fmt: skip

ARMS = ["base", "adapter", "base+probe", "base+probe@matched", "adapter+probe", "both+probe", "diff+probe"]
AXES_WITH_ANSWER = ("instructed", "behaviour")
"""Axes on which a model's own arm is judged by its answer itself."""
