"""(j) Detectors: loaded, scoring, watching, beside what they are made of."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers.generation.streamers import BaseStreamer

from adapterprobe.activations.in_memory import states_in_memory
from adapterprobe.detectors.detector import Detector, score_all
from adapterprobe.detectors.published import import_probe, read_checkpoint
from adapterprobe.models import LanguageModel
from benchmarks.workload import Row, model, ratio, side_by_side

ROWS, NEW = 48, 24


def bundle(lm: LanguageModel, folder: Path, layer: int) -> Path:
    """A detector with a random probe: what it says does not matter here."""
    rng, width = np.random.default_rng(layer), lm.structure.width
    state = {
        "linear.weight": torch.tensor(rng.normal(size=(1, width)) / 40, dtype=torch.float32),
        "linear.bias": torch.zeros(1),
        "dataset_mean": torch.zeros(width),
        "dataset_std": torch.ones(width),
        "threshold": torch.tensor(0.0),
    }
    path = folder.with_suffix(".pt")
    torch.save({"state_dict": state, "hyperparams": {"probe_architecture": "lr", "layer": layer}}, path)
    return import_probe(read_checkpoint(path), lm, folder)


def talks() -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "user", "content": f"What do you know of town number {n}?"},
            {"role": "assistant", "content": f"Town number {n} lies by a river, and {n * 7} people live in it."},
        ]
        for n in range(ROWS)
    ]


class _Silent(BaseStreamer):
    """A streamer that does nothing, so that both sides stream."""

    def put(self, value) -> None: ...

    def end(self) -> None: ...


def run() -> list[Row]:
    lm = model()
    with tempfile.TemporaryDirectory() as name:
        folders = [bundle(lm, Path(name) / f"d{layer}", layer) for layer in (15, 24)]
        one, two = (Detector.load(folder, lm, verify=False) for folder in folders)
        rows = talks()
        encoded = one.encoded([one.prompter.prompt(n, {"messages": talk}) for n, talk in enumerate(rows)])
        seconds, _ = side_by_side(
            {
                "load": lambda: Detector.load(folders[0], lm, verify=False),
                "with golden rows": lambda: Detector.load(folders[0], lm),
                "states": lambda: states_in_memory(one.engine, encoded, [15], "states"),
                "one": lambda: one.score(rows),
                "two": lambda: score_all([one, two], rows),
            },
            rounds=3,
        )
        question = [{"role": "user", "content": "Tell me about the sea."}]
        ids = torch.tensor([lm.tokenizer.apply_chat_template(question, add_generation_prompt=True)["input_ids"]])
        options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
        mask = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0}
        live, found = side_by_side(
            {
                "generate": lambda: lm.model.generate(ids, streamer=_Silent(), **options, **mask),
                "watch": lambda: list(one.watch(question, **options)),
            },
            rounds=9,
        )
    load, golden = min(seconds["load"]), min(seconds["with golden rows"])
    overhead = ratio(live["watch"], live["generate"]) - 1
    both = ratio(seconds["two"], seconds["one"])
    beside = ratio(seconds["one"], seconds["states"])
    assert len(found["watch"]) == NEW
    return [
        Row("a bundle onto a loaded model, without golden rows", f"{load * 1000:.0f} ms ({golden:.1f} s with them)", "< 0.5 s", load < 0.5),
        Row(f"score of {ROWS} conversations against the passes alone (what `extract` does)", f"{beside:.2f} times the time", "<= 1.1", beside <= 1.1),
        Row("two detectors of one model against one", f"{both:.2f} times the time", "< 1.2", both < 1.2),
        Row(f"watching {NEW} tokens against `generate` with a streamer", f"{overhead:+.1%}", "< 5 %", overhead < 0.05),
    ]  # fmt: skip
