"""steering-vectors' recorder over token ids, in its own environment: MODEL FOLDER -> states.npy, seconds."""

import json
from pathlib import Path

import numpy as np
import torch
from harness import LAYER, MODEL, padded_batches, time_and_save
from steering_vectors import record_activations
from transformers import AutoConfig, AutoModelForCausalLM

config = AutoConfig.from_pretrained(MODEL)
# The folder was written by transformers 5, whose name for this the older one does not know.
config.rope_theta = json.loads((Path(MODEL) / "config.json").read_text())["rope_parameters"]["rope_theta"]
model = AutoModelForCausalLM.from_pretrained(MODEL, config=config, torch_dtype=torch.bfloat16).eval()


@torch.inference_mode()
def extract() -> np.ndarray:
    states = []
    for tokens, mask in padded_batches():
        with record_activations(model) as recorded:
            model(input_ids=tokens, attention_mask=mask, use_cache=False)
        states.append(torch.stack([recorded[layer][0][:, -1] for layer in sorted(recorded)])[LAYER].float().numpy())
    return np.concatenate(states)


time_and_save(extract)
