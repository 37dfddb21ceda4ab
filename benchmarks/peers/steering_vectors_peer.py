"""steering-vectors' recorder over token ids, in its own environment: MODEL FOLDER -> states.npy, seconds."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from steering_vectors import record_activations
from transformers import AutoConfig, AutoModelForCausalLM

model_folder, work = sys.argv[1], Path(sys.argv[2])
config = AutoConfig.from_pretrained(model_folder)
# The folder was written by transformers 5, whose name for this the older one does not know.
config.rope_theta = json.loads((Path(model_folder) / "config.json").read_text())["rope_parameters"]["rope_theta"]
model = AutoModelForCausalLM.from_pretrained(model_folder, config=config, torch_dtype=torch.bfloat16).eval()
ids = json.loads((work / "ids.json").read_text())


@torch.inference_mode()
def extract() -> np.ndarray:
    states = []
    for start in range(0, len(ids), 16):
        rows = ids[start : start + 16]
        longest = max(map(len, rows))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with record_activations(model) as recorded:
            model(input_ids=tokens, attention_mask=mask, use_cache=False)
        # Its layer 14 is what leaves the fifteenth block: our state 15.
        states.append(torch.stack([recorded[layer][0][:, -1] for layer in sorted(recorded)])[14].float().numpy())
    return np.concatenate(states)


extract()
start = time.perf_counter()
found = extract()
seconds = time.perf_counter() - start
np.save(work / "states.npy", found)
print(seconds)
