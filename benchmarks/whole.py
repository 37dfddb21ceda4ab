"""(a) The demo's whole comparison with one training seed: against what a competent user writes by hand."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adapterprobe import pipeline
from adapterprobe.adapters.attach import target_names
from adapterprobe.adapters.kinds import rate_of
from adapterprobe.cache import cache_root
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.models import load_model
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts
from benchmarks.workload import Row, transformers_pass


def run() -> list[Row]:
    config = read_config("demo", ["seeds=[0]"])
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("models", "sources"):
            os.symlink(cache_root() / kind, os.path.join(scratch, kind))
        before = os.environ.get("ADAPTERPROBE_CACHE")
        os.environ["ADAPTERPROBE_CACHE"] = scratch
        try:
            start = time.perf_counter()
            ours = pipeline.run(config, Path(scratch) / "out")
            seconds = time.perf_counter() - start
            table = ours.auroc("test")
            table = table[table["probe"].isna() | (table["probe"] == "logistic")]
            found = dict(zip(table["arm"], table["estimate"], strict=True))
        finally:
            if before is None:
                del os.environ["ADAPTERPROBE_CACHE"]
            else:
                os.environ["ADAPTERPROBE_CACHE"] = before
    start = time.perf_counter()
    theirs, parts = reference(config)
    by_hand = time.perf_counter() - start
    rows = [
        Row(
            "the demo with one seed: ours (with belief, controls, statistics, report) against the reference (forward "
            "passes, training and probes alone)",
            f"{by_hand / seconds:.1f} times as fast ({seconds:.0f} against {by_hand:.0f} s; the reference: "
            + ", ".join(f"{name} {value:.0f} s" for name, value in parts.items())
            + ")",
            ">= 4",
            by_hand >= 4 * seconds,
        )
    ]
    for arm, tolerance in (("base", 0.02), ("base+probe", 0.03)):
        rows.append(
            Row(
                f"held-out AUROC of {arm}, ours and the reference's (must agree)",
                f"{found[arm]:.3f} and {theirs[arm]:.3f}",
                f"within {tolerance}",
                abs(found[arm] - theirs[arm]) <= tolerance,
            )
        )
    rows.append(
        Row(
            "held-out AUROC of adapter and adapter+probe, ours and the reference's (other batches, other adapters)",
            f"{found['adapter']:.3f} and {theirs['adapter']:.3f}; {found['adapter+probe']:.3f} and {theirs['adapter+probe']:.3f}",
        )
    )
    return rows


def reference(config: RunConfig) -> tuple[dict[str, float], dict[str, float]]:
    """transformers + peft + scikit-learn: batch 16, left padding, every layer's states, a loop over layers."""
    parts: dict[str, float] = {}

    def timed(name: str, action):
        start = time.perf_counter()
        result = action()
        parts[name] = parts.get(name, 0.0) + time.perf_counter() - start
        return result

    lm = load_model()
    prompts, belief = prepare_prompts(config, prepare_questions(config), lm.tokenizer)
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    asked = encode(lm.tokenizer, belief.known[0], lm.context_length, lm.vocabulary)
    ids = [list(row) for row in encoded.ids]
    base, base_says = timed("adapter off", lambda: _states(lm.model, ids, encoded))
    timed("what the model knows, one draw", lambda: _states(lm.model, [list(row) for row in asked.ids], asked))
    settings = config.adapter
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=target_names(lm.model, lm.structure, settings),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    net = get_peft_model(lm.model, lora)
    timed("training", lambda: _train(net, encoded, config))
    on, on_says = timed("adapter on", lambda: _states(net.eval(), ids, encoded))
    truth = np.array([int(p.example.truth) for p in encoded.prompts])
    condition = np.array([p.condition for p in encoded.prompts])
    split = np.array([p.split for p in encoded.prompts])
    rows = {name: split == name for name in ("adapter-train", "probe-train", "select", "test")}

    def auroc(scores, where) -> float:
        kept = [where & (condition == c) for c in ("truth", "lie")]
        return float(np.mean([roc_auc_score(truth[k], scores[k]) for k in kept]))

    def probe(states, fit) -> float:
        best = (-1.0, None)
        for layer in range(len(states)):
            for strength in config.select.strengths:
                made = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
                made.fit(states[layer, fit], truth[fit])
                scores = made.decision_function(states[layer])
                best = max(best, (auroc(scores, rows["select"]), auroc(scores, rows["test"])), key=lambda x: x[0])
        return best[1]

    asked_false = np.array([p.condition == "lie" for p in encoded.prompts])
    both, difference = np.concatenate([base, on], 2), on - base
    matched = rows["probe-train"] | rows["adapter-train"]
    found = {
        "base": auroc(np.where(asked_false, -base_says, base_says), rows["test"]),
        "adapter": auroc(on_says, rows["test"]),
        "base+probe": timed("probes", lambda: probe(base, rows["probe-train"])),
        "base+probe@matched": timed("probes", lambda: probe(base, matched)),
        "adapter+probe": timed("probes", lambda: probe(on, rows["probe-train"])),
        "both+probe": timed("probes", lambda: probe(both, rows["probe-train"])),
        "diff+probe": timed("probes", lambda: probe(difference, rows["probe-train"])),
    }
    return found, parts


def _choice_gap(logits: torch.Tensor, choices) -> torch.Tensor:
    """log p(positive) - log p(negative), each summed over its token ids."""
    logprobs = torch.log_softmax(logits.float(), -1)
    sides = [
        torch.stack([torch.logsumexp(row[list(getattr(c, side))], 0) for row, c in zip(logprobs, choices, strict=True)])
        for side in ("positive", "negative")
    ]
    return sides[0] - sides[1]


def _states(net, ids: list[list[int]], encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    says: list[np.ndarray] = []

    class Watched:
        """Takes the choices' gap from the logits that the pass makes anyway."""

        def __call__(self, **inputs):
            out = net(**inputs)
            begin = sum(map(len, says))
            choices = encoded.choices[begin : begin + len(out.logits)]
            says.append(_choice_gap(out.logits[:, -1], choices).numpy())
            return out

    _, states = transformers_pass(Watched(), ids, 16)
    return states, np.concatenate(says)


def _train(net, encoded: Encoded, config: RunConfig) -> None:
    """Padded batches of 8, AdamW, the same number of epochs, the loss on select after each."""
    settings = config.adapter
    train, select = encoded.where("adapter-train"), encoded.where("select")
    optimiser = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad], lr=rate_of(settings), weight_decay=0.0
    )

    def loss(rows) -> torch.Tensor:
        ids = [list(encoded.ids[row]) for row in rows]
        longest = max(map(len, ids))
        tokens = torch.tensor([[0] * (longest - len(row)) + row for row in ids])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
        logits = net(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, -1]
        wanted = [
            encoded.choices[r].positive if encoded.prompts[r].example.truth else encoded.choices[r].negative
            for r in rows
        ]
        logprobs = torch.log_softmax(logits.float(), -1)
        return -torch.stack(
            [torch.logsumexp(row[list(tokens)], 0) for row, tokens in zip(logprobs, wanted, strict=True)]
        ).mean()

    for epoch in range(settings.epochs):
        net.train()
        order = np.random.default_rng(epoch).permutation(train)
        for start in range(0, len(order), settings.batch_size):
            optimiser.zero_grad()
            loss(order[start : start + settings.batch_size]).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            for start in range(0, len(select), 16):
                loss(select[start : start + 16])
