"""Prompts: what is sent, and that nothing in it but the question tells the truth."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterprobe.data import load_relation, relation_names
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts import TEMPLATES, belief_rounds, draw_demo_sets, make_prompts, render, templates_for
from adapterprobe.types import FORMS

RELATION = load_relation("capitals")
BY_NAME = {template.name: template for template in TEMPLATES}


def made(form="question", shots=4, conditions=("truth", "lie"), renders=1, relation=RELATION, seed=0, systems=None):
    examples = relation.examples(relation.groups[:40], form, seed)
    groups = sorted({e.group for e in examples})
    pool = [e for e in examples if e.group in groups[:8]]
    asked = [e for e in examples if e.group not in groups[:8]]
    demos = draw_demo_sets(pool, shots, 3, "demos", np.random.default_rng(seed))
    templates = templates_for(relation, form)
    return make_prompts(asked, "test", conditions, templates, demos, "plain", seed, renders=renders, systems=systems)


def test_plain_golden():
    demos = [("Is Fe the symbol of iron?", "Yes"), ("Is Au the symbol of iron?", "No")]
    assert render("plain", demos, "Is Ag the symbol of silver?") == (
        "Question: Is Fe the symbol of iron?\nAnswer: Yes\n\nQuestion: Is Au the symbol of iron?\nAnswer: No\n\n"
        "Question: Is Ag the symbol of silver?\nAnswer:"
    )
    assert render("plain", [], "Why?") == "Question: Why?\nAnswer:"


def test_chat_is_the_tokenizers_own(tokenizer):
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    with pytest.raises(ConfigError, match="no chat template"):
        render("chat", [], "Why?", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    assert render("chat", [("A?", "Yes")], "B?", tokenizer) == "<user>A?\n<assistant>Yes\n<user>B?\n<assistant>"


def test_truth_and_lie_differ_in_the_answers_alone():
    prompts = made()
    by_key = {}
    for prompt in prompts:
        by_key.setdefault((prompt.template, prompt.demo_set), {}).setdefault(prompt.condition, prompt)
    compared = 0
    for pair in by_key.values():
        if len(pair) == 2:
            one, two = (pair[c].text.splitlines()[:-2] for c in ("truth", "lie"))
            assert [line for line in one if line.startswith("Q")] == [line for line in two if line.startswith("Q")]
            answers = [line for line in one if line.startswith("A")], [line for line in two if line.startswith("A")]
            assert answers[0] == [{"Answer: Yes": "Answer: No", "Answer: No": "Answer: Yes"}[a] for a in answers[1]]
            assert Counter(answers[0]) == {"Answer: Yes": 2, "Answer: No": 2}
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("form", FORMS)
def test_both_polarities_share_everything_but_the_question(form):
    prompts = made(form)
    pairs = {}
    for p in prompts:
        pairs.setdefault((p.example.group, p.condition), []).append(p)
    for one, two in pairs.values():
        assert one.example.truth != two.example.truth
        assert (one.template, one.demo_set) == (two.template, two.demo_set)
    assert len({p.prompt_id for p in prompts}) == len(prompts)
    used = Counter((p.template, p.demo_set) for p in prompts)
    assert len(used) == 3 * len(templates_for(RELATION, form)) and max(used.values()) <= 2 * min(used.values())


def test_labels():
    for prompt in made():
        assert prompt.instructed == (prompt.example.truth == (prompt.condition == "truth"))
    assert all(p.instructed is None for p in made(shots=0, conditions=("neutral",)))


def test_belief_prompts_share_nothing_with_tested_ones():
    examples = RELATION.examples(RELATION.groups[:20], "question", 0)
    demos = draw_demo_sets(examples[:12], 4, 3, "belief", np.random.default_rng(0))
    asked = [e for e in examples if e.group not in {d.group for d in examples[:12]}]
    rounds = belief_rounds(asked, "test", templates_for(RELATION, "question", role="belief"), demos, 3, "plain")
    prompts = [p for here in rounds for p in here]
    assert len(rounds) == 3 and len(prompts) == 3 * len(asked)
    assert not {p.template for p in prompts} & {p.template for p in made()}
    assert {p.condition for p in prompts} == {"truth"}
    assert len({p.text for p in prompts}) == len(prompts)


@pytest.mark.parametrize("form", FORMS)
def test_every_belief_round_is_another_prompt(form):
    """Also without demonstrations: three rounds are three wordings."""
    examples = RELATION.examples(RELATION.groups[:20], form, 0)
    demos = draw_demo_sets([], 0, 1, "none", np.random.default_rng(0))
    templates = templates_for(RELATION, form, role="belief")
    rounds = belief_rounds(examples, "test", templates, demos, 3, "plain")
    assert all(len({here[i].text for here in rounds}) == 3 for i in range(len(examples)))
    with pytest.raises(DataError, match="9 separate truthful prompts were asked for, there are 3 wordings and 1 sets"):
        belief_rounds(examples, "test", templates, demos, 9, "plain")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(relation_names()), st.sampled_from(FORMS), st.integers(0, 6), st.integers(0, 50), st.integers(1, 3)
)
def test_any_relation_renders(name, form, shots, seed, renders):
    conditions = ("truth", "lie") if shots else ("neutral",)
    prompts = made(form, shots, conditions, renders if shots else 1, load_relation(name), seed)
    for prompt in prompts:
        assert BY_NAME[prompt.template].turn(prompt.example) == prompt.turn
        assert prompt.turn in prompt.text
        assert prompt.example.group not in prompt.demo_groups
        assert len(set(prompt.demo_groups)) == shots
        assert prompt.text.endswith("Answer:") and "{" not in prompt.text


def test_refusals():
    examples = RELATION.examples(RELATION.groups[:10], "question", 0)
    with pytest.raises(DataError, match="shots were asked for"):
        draw_demo_sets(examples[:4], 5, 1, "demos", np.random.default_rng(0))
    demos = draw_demo_sets(examples, 4, 1, "demos", np.random.default_rng(0))
    with pytest.raises(DataError, match="hold the tested group"):
        make_prompts(examples, "test", ["truth"], templates_for(RELATION, "question"), demos, "plain", 0)
    with pytest.raises(ConfigError, match="did you mean 'true_that'"):
        templates_for(RELATION, "question", ["true_tht"])
    with pytest.raises(ConfigError, match="for the form"):
        BY_NAME["judge"].turn(examples[0])
