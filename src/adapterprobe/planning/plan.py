"""What a run will need, before it starts: memory by part, time by stage, and the largest batch that fits.

Nothing is guessed that can be tried out: the model is loaded, a few passes and training steps are made on the run's own
prompts, what a backward pass keeps is counted as it is kept, and the rest is multiplication.
"""

from __future__ import annotations

import time

from adapterprobe.adapters.preflight import check_adapter, refuse_training_only
from adapterprobe.config import RunConfig
from adapterprobe.detectors.fit import check_search
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError
from adapterprobe.models import load_model
from adapterprobe.planning.dry_run import Plan, Trial
from adapterprobe.planning.memory import since_start
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.reading import reading_found
from adapterprobe.prompts.run_prompts import prepare_prompts


def make_plan(config: RunConfig, whole: bool = True, length: int | None = None) -> Plan:
    """Plan a run (or, without `whole`, one training as `adapterprobe train` makes it).

    Args:
        length: plan for prompts of so many tokens, instead of the run's own.

    Raises:
        AdapterProbeError: whatever a run would refuse.
    """
    config = reading_found(config)
    check_adapter(config.adapter)
    refuse_training_only(config)
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    questions = prepare_questions(config)
    lm = load_model(**config.model.arguments())
    prompts, belief = prepare_prompts(config, questions, lm.tokenizer, lm.context_length)
    if not whole:
        prompts = [p for p in prompts if p.split in ("adapter-train", "select")]
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    encoded = with_reads(encoded, config.read, lm.tokenizer)
    if length is not None:
        if not 2 <= length <= (lm.context_length or length):
            raise ConfigError(
                f"--length expects from 2 to {lm.context_length} tokens (the model's context), got {length}"
            )
        # Cut at the front, or filled up there with the prompt itself.
        ids = tuple((row * (length // len(row) + 1))[-length:] for row in encoded.ids)
        encoded = Encoded(encoded.prompts, ids, encoded.choices)
    if whole:
        check_search(config, encoded)
    engine = Engine(lm.model, lm.structure)
    seconds["start, load model, make prompts"] = time.perf_counter() - start + since_start(start)
    return Trial(config, lm, engine, encoded, belief, whole, seconds).plan()
