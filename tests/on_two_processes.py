"""A model that two processes share out (tensor parallel, by transformers' own plan), held against itself in one: under torchrun,
on_two_processes.py MODEL."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.distributed import DistributedConfig

from adapterprobe.models import load_model, wrap_model
from spread_models import alike, passes


def main(model: str) -> None:
    torch.distributed.init_process_group("gloo")
    shared = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, distributed_config=DistributedConfig(tp_size=2)
    )
    lm = wrap_model(shared, AutoTokenizer.from_pretrained(model))
    here = {tuple(p.to_local().shape) for p in shared.parameters() if hasattr(p, "to_local")}
    assert here, "nothing is shared out"
    whole = load_model(model, dtype="fp32", device="cpu")
    assert (lm.fingerprint, lm.vectors_hash) == (whole.fingerprint, whole.vectors_hash)
    text = "Question: What is the capital of France?\nAnswer:"
    ids = [
        whole.tokenizer(text + more, add_special_tokens=False).input_ids for more in (" Paris", " Rome", " in", " a")
    ]
    alike(passes(lm, ids), passes(whole, ids))
    print("alike")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
