"""(b) Hidden states at the answer position: against plain transformers and the recorders people use."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from adapterprobe.engine import Engine
from adapterprobe.models.gguf import converted, default_gguf
from benchmarks.workload import Row, few_shot, model, padded_pass, ratio, relative_gap, side_by_side

PEERS = {"steering-vectors": ".venv-steering", "nnsight": ".venv-nnsight"}
PROMPTS = 160


def engine_pass(engine: Engine, encoded) -> tuple[np.ndarray, np.ndarray]:
    top = np.zeros(len(encoded), int)
    states = np.zeros((engine.structure.n_layers + 1, len(encoded), engine.structure.width), np.float32)
    with torch.inference_mode():
        for batch in engine.plan(encoded.ids):
            out = engine.run(batch)
            top[list(batch.rows)] = out.logits.argmax(-1).numpy()
            states[:, list(batch.rows)] = out.states.float().numpy()
    return top, states


def run() -> list[Row]:
    lm = model()
    engine = Engine(lm.model, lm.structure)
    rows = []
    for title, encoded, bar in (
        ("four-shot prompts", few_shot(PROMPTS), 5.0),
        ("prompts without shots (they share nothing but the first word)", few_shot(PROMPTS, shots=0), 1.0),
    ):
        seconds, results = side_by_side(
            {"plain": lambda e=encoded: padded_pass(lm, e), "ours": lambda e=encoded: engine_pass(engine, e)}
        )
        rate = {name: len(encoded) / statistics.median(values) for name, values in seconds.items()}
        times = ratio(seconds["plain"], seconds["ours"])
        gap = relative_gap(results["ours"][1][:-1], results["plain"][1][:-1])
        rows.append(
            Row(
                f"{title}: ours against plain transformers (batch 16, padded)",
                f"{times:.1f} times as fast ({rate['ours']:.0f} against {rate['plain']:.0f} prompts/s); mean difference of "
                f"states {gap:.1e} of their mean size (bf16)",
                f">= {bar:g}",
                times >= bar and gap < 0.05,
            )
        )
    encoded = few_shot(PROMPTS)
    for peer, folder in PEERS.items():
        rows.append(_peer(peer, Path(folder), engine, encoded))
    return rows


def _peer(peer: str, folder: Path, engine: Engine, encoded) -> Row:
    """The peer runs in an environment of its own (pins clash), in turns with ours."""
    python = folder / "bin" / "python"
    if not python.exists():
        return Row(f"four-shot prompts: {peer}", f"not measured: no {folder} (make bench installs it)", ">= 5", None)
    script = Path(__file__).parent / "peers" / f"{peer.replace('-', '_')}_peer.py"
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "ids.json").write_text(json.dumps([list(ids) for ids in encoded.ids]))
        states = None
        for _ in range(3):
            seconds, results = side_by_side({"ours": lambda: engine_pass(engine, encoded)}, rounds=1)
            states = results["ours"][1]
            command = [str(python), str(script), str(converted(default_gguf())), str(work)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return Row(
                    f"four-shot prompts: {peer}", f"failed: {done.stderr.strip().splitlines()[-1][:120]}", ">= 5", None
                )
            ours += seconds["ours"]
            theirs.append(float(done.stdout.split()[-1]))
        gap = relative_gap(states[15], np.load(work / "states.npy"))
    times = ratio(theirs, ours)
    return Row(
        f"four-shot prompts: ours against {peer}",
        f"{times:.1f} times as fast ({len(encoded) / statistics.median(theirs):.0f} prompts/s there); mean difference of "
        f"states {gap:.1e} (bf16)",
        ">= 5",
        times >= 5 and gap < 0.05,
    )
