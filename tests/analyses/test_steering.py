"""Steering: in a model whose answer is set by one direction, adding it moves the answer by sign and dose; other directions do not."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adapterprobe.activations.in_memory import states_in_memory
from adapterprobe.analyses.directions import unit
from adapterprobe.analyses.steering import DOSES, _doses
from adapterprobe.data import load_relation
from adapterprobe.engine import Engine
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.encoded import encode

LAYER, SLOPE = 4, 3.0


@pytest.fixture
def planted(tiny_lm, tokenizer):
    """A llama whose last state, by its product with `direction`, is the log-odds of the positive choice."""
    lm = tiny_lm("llama")
    relation = load_relation("capitals")
    examples = relation.examples(relation.groups[:30], "question", 0)
    demos = draw_demo_sets(examples[:8], 2, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples[8:], "test", ["truth"], templates_for(relation, "question"), demos, "plain", 0)
    encoded = encode(tokenizer, prompts, None)
    direction = unit(np.random.default_rng(1).standard_normal(lm.structure.width))
    lm.model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        lm.model.lm_head.weight.zero_()
        for sign, side in ((1, encoded.choices[0].positive), (-1, encoded.choices[0].negative)):
            lm.model.lm_head.weight[list(side)] = torch.tensor(sign * SLOPE / 2 * direction, dtype=torch.float32)
    engine = Engine(lm.model, lm.structure)
    states = states_in_memory(engine, encoded, [LAYER], "states").layer(LAYER)
    labels = np.array([int(p.example.truth) for p in encoded.prompts])
    # Means of both classes one apart along the direction, whatever the random model says.
    along = states @ direction
    shift = 1 - (along[labels == 1].mean() - along[labels == 0].mean())
    states = states + np.outer(labels * shift, direction)
    fit = SimpleNamespace(
        arm="base+probe",
        selection=SimpleNamespace(best=SimpleNamespace(layer=LAYER)),
        features=lambda layer: states,
        rows=SimpleNamespace(fit=np.arange(len(labels)), labels=labels),
    )
    return engine, encoded, fit, direction


def test_sign_dose_and_random_directions(planted):
    engine, encoded, fit, direction = planted
    records = _doses(engine, encoded, fit, direction, 0)
    by = {(r["direction"], r["dose"]): r for r in records}
    assert len(by) == 2 * len(DOSES)
    for dose in DOSES:
        # A distance of one along the direction moves the log-odds by the slope.
        assert by["probe", dose]["change"] == pytest.approx(SLOPE * dose, rel=1e-3)
        assert abs(by["random", dose]["change"]) < 0.5 * SLOPE * abs(dose)
    changes = [by["probe", dose]["change"] for dose in DOSES]
    assert np.allclose(np.array(changes) / DOSES, changes[0] / DOSES[0], rtol=1e-3), "linear in the dose"
    assert by["probe", 4.0]["turned"] >= by["probe", 1.0]["turned"] and by["probe", 4.0]["turned"] > 0.2
    assert all(
        r["prompts"] == min(48, len(encoded)) and r["error"] < 1e-3 for r in records if r["direction"] == "probe"
    )


def test_the_other_way_round(planted):
    engine, encoded, fit, direction = planted
    turned = {r["dose"]: r["change"] for r in _doses(engine, encoded, fit, -direction, 0) if r["direction"] == "probe"}
    # Along the opposite direction both the distance and the vector change sign: the dose means the same.
    assert turned[2.0] == pytest.approx(2 * SLOPE, rel=1e-3)
