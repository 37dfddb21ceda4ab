"""nnsight's tracing over token ids, in its own environment: MODEL FOLDER -> states.npy, seconds."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from nnsight import NNsight
from transformers import AutoModelForCausalLM

model_folder, work = sys.argv[1], Path(sys.argv[2])
model = NNsight(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).eval())
ids = json.loads((work / "ids.json").read_text())
LAYERS = len(model.model.layers)


@torch.inference_mode()
def extract() -> np.ndarray:
    states = []
    for start in range(0, len(ids), 16):
        rows = ids[start : start + 16]
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with model.trace(input_ids=tokens, attention_mask=mask, use_cache=False):
            kept = list().save()
            for layer in range(LAYERS):
                output = model.model.layers[layer].output
                kept.append((output[0] if isinstance(output, tuple) else output)[:, -1])
        # Its layer 14 is what leaves the fifteenth block: our state 15.
        states.append(torch.stack(list(kept))[14].float().numpy())
    return np.concatenate(states)


extract()
start = time.perf_counter()
found = extract()
seconds = time.perf_counter() - start
np.save(work / "states.npy", found)
print(seconds)
