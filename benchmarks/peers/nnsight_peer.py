"""nnsight's tracing over token ids, in its own environment: MODEL FOLDER -> states.npy, seconds."""

import numpy as np
import torch
from harness import LAYER, MODEL, padded_batches, time_and_save
from nnsight import NNsight
from transformers import AutoModelForCausalLM

model = NNsight(AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16).eval())
LAYERS = len(model.model.layers)


@torch.inference_mode()
def extract() -> np.ndarray:
    states = []
    for tokens, mask in padded_batches():
        with model.trace(input_ids=tokens, attention_mask=mask, use_cache=False):
            kept = list().save()
            for layer in range(LAYERS):
                output = model.model.layers[layer].output
                kept.append((output[0] if isinstance(output, tuple) else output)[:, -1])
        states.append(torch.stack(list(kept))[LAYER].float().numpy())
    return np.concatenate(states)


time_and_save(extract)
