"""Templates: each split has wordings of its own; a user's own must place the question; any data set renders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterprobe.data import hub_table, load_relation
from adapterprobe.data.items import QUESTION_FORMS, STATEMENT_FORMS, TRANSCRIPT_FORMS, Item, ItemDataset
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts import demo_templates, draw_demo_sets, format_names, make_prompts, templates_for
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.types import TEMPLATE_ROLES, Template
from conftest import small_config

CAPITALS = load_relation("capitals")
CLAIMS = ItemDataset(
    "claims.csv",
    "",
    tuple(
        Item(i, {"statement": f"thing {i} is {'big' if i % 2 else 'small'}"}, bool(i % 3), group=f"g{i // 2}")
        for i in range(60)
    ),
    STATEMENT_FORMS,
)
QUIZ = ItemDataset(
    "quiz.jsonl",
    "",
    tuple(Item(i, {"query": f"What is {i} and {i}?"}, None, (str(2 * i), str(3 * i + 1)), f"q{i}") for i in range(40)),
    QUESTION_FORMS,
)
CHAT = ItemDataset(
    "chat.jsonl",
    "",
    tuple(
        Item(i, {"dialogue": f"User: Is it {i}?", "reply": f"It is {i % 5}."}, bool(i % 2), group=f"c{i}")
        for i in range(40)
    ),
    TRANSCRIPT_FORMS,
)


@pytest.mark.parametrize("dataset", [CAPITALS, CLAIMS, QUIZ, CHAT], ids=lambda d: d.name)
def test_every_form_has_wordings_to_train_and_to_ask_belief_with(dataset):
    for form in dataset.forms:
        by_role = {role: {t.name for t in templates_for(dataset, form, role=role)} for role in TEMPLATE_ROLES}
        assert len(by_role["train"]) >= 3 or form != "question"
        assert len(by_role["belief"]) >= 2
        assert not by_role["belief"] & set.union(*(by_role[role] for role in ("train", "tune", "judge")))
        if form == "question":
            assert by_role["judge"] and not by_role["judge"] & (by_role["train"] | by_role["tune"])


def test_each_split_has_wordings_of_its_own(tokenizer):
    config = small_config("x")
    prompts, belief = prepare_prompts(config, prepare_questions(config), tokenizer)
    used = {}
    for prompt in prompts:
        used.setdefault(prompt.split, set()).add(prompt.template)
    fitted = used["adapter-train"] | used["probe-train"]
    tuned, judged = used["select"] | used["calibrate"], used["test"] | used["ood"]
    asked = {p.template for prompts in (*belief.known, *belief.recalled) for p in prompts}
    assert fitted == {"ask", "true_that", "claim", "following", "am_i"}
    for one, two in [(fitted, tuned), (fitted, judged), (tuned, judged), (fitted | tuned | judged, asked)]:
        assert one and two and not one & two


def test_named_templates_serve_where_they_fit():
    assert [t.name for t in templates_for(CAPITALS, "question", ["claim", "accurate"])] == ["claim", "accurate"]
    assert [t.name for t in templates_for(CAPITALS, "question", ["claim", "accurate"], role="judge")] == ["accurate"]
    # Only one: every split has it.
    assert [t.name for t in templates_for(CAPITALS, "question", ["claim"], role="judge")] == ["claim"]


def test_ones_own_pattern(tokenizer):
    (own,) = templates_for(CAPITALS, "question", ["Really? {Statement}!"])
    example = CAPITALS.examples(["france"], "question", 0)
    assert own.turn(CAPITALS.examples(CAPITALS.groups[:9], "question", 0)[0]).startswith("Really? ") and not example
    config = small_config("x", elicit={"templates": ["Really? {Statement}!", "claim"]})
    prompts, _ = prepare_prompts(config, prepare_questions(config), tokenizer)
    assert {p.template for p in prompts} == {"Really? {Statement}!", "claim"}


@pytest.mark.parametrize(
    ("dataset", "pattern", "match"),
    [
        (CAPITALS, "Is that so {about}?", r"does not place the question|places \{about\}"),
        (CAPITALS, "{subject}, yes?", "does not place the question"),
        (CAPITALS, "{statemnt}?", "did you mean 'statement'"),
        (CAPITALS, "{statement?", "cannot be read"),
        (CAPITALS, "{statement.__class__}", "expected plain names"),
        (CAPITALS, "{0}", "expected plain names"),
        (CAPITALS, "{statement:d}", "expected plain names"),
        (CAPITALS, "{statement!r}", "expected plain names"),
        (QUIZ, "{query}", "does not place the question"),
        (CHAT, "{reply} honest?", "does not place the question"),
    ],
)
def test_patterns_that_cannot_serve(dataset, pattern, match):
    with pytest.raises(ConfigError, match=match):
        templates_for(dataset, "question", [pattern])


def test_forms_that_a_data_set_does_not_have():
    with pytest.raises(
        ConfigError, match="'claims.csv' cannot be asked in the form 'recall'; it has question, negated, statement"
    ):
        templates_for(CLAIMS, "recall")
    with pytest.raises(ConfigError, match="cannot be asked in the form 'statement'"):
        templates_for(CHAT, "statement")


def test_demonstrations_of_another_data_set_have_wordings_of_their_own():
    templates = templates_for(QUIZ, "question")
    shown = demo_templates(templates, CAPITALS, QUIZ)
    assert set(shown) == {t.name for t in templates} and all(t.fields <= CAPITALS.fields for t in shown.values())
    assert len(set(shown.values())) > 1 and demo_templates(templates, QUIZ, QUIZ) is None
    demos = draw_demo_sets(CAPITALS.examples(CAPITALS.groups[:8], "question", 0), 2, 1, "d", np.random.default_rng(0))
    asked = QUIZ.examples(QUIZ.groups[:6], "question", 0)
    for prompt in make_prompts(asked, "ood", ["truth"], templates, demos, "plain", 0, shown_in=shown):
        assert prompt.text.count("Question:") >= 3 and "apital" in prompt.text and prompt.turn in prompt.text


def test_demonstrations_are_balanced_where_groups_have_one_side():
    pool = CHAT.examples(CHAT.groups[:10], "question", 0)
    for seed in range(20):
        for demos in draw_demo_sets(pool, 4, 2, "d", np.random.default_rng(seed)):
            assert sum(e.truth for e in demos.examples) == 2 and len(set(demos.groups)) == 4
    with pytest.raises(DataError, match="0 of them with a false example"):
        draw_demo_sets([e for e in pool if e.truth], 4, 1, "d", np.random.default_rng(0))


WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
FORMATS = [name for name in format_names() if name != "chat"]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(WORDS, min_size=12, max_size=16, unique_by=lambda t: t.strip().casefold()),
    st.sampled_from(["question", "negated", "statement"]),
    st.sampled_from(FORMATS),
    st.integers(0, 4),
    st.integers(0, 5),
)
def test_any_claims_render(words, form, format_name, shots, seed):
    """Whatever the text (braces, quotes, markup, right-to-left): the question is there, its group is not shown."""
    items = tuple(Item(i, {"statement": w.strip()}, bool(i % 2), group=f"g{i}") for i, w in enumerate(words))
    dataset = ItemDataset("x", "", items, STATEMENT_FORMS)
    _renders(dataset, form, format_name, shots, seed, "statement")


@settings(max_examples=120, deadline=None)
@given(
    st.lists(WORDS, min_size=12, max_size=16, unique_by=lambda t: t.strip().casefold()),
    st.lists(WORDS, min_size=2, max_size=4, unique_by=str.strip),
    st.sampled_from(QUESTION_FORMS),
    st.sampled_from(FORMATS),
    st.integers(0, 4),
    st.integers(0, 5),
)
def test_any_questions_render(words, answers, form, format_name, shots, seed):
    answers = tuple(a.strip() for a in answers)
    items = tuple(Item(i, {"query": w.strip()}, None, answers, f"g{i}") for i, w in enumerate(words))
    _renders(ItemDataset("x", "", items, QUESTION_FORMS), form, format_name, shots, seed, "query")


def _renders(dataset, form, format_name, shots, seed, core):
    pool, asked = dataset.groups[:6], dataset.groups[6:]
    demos = draw_demo_sets(dataset.examples(pool, form, seed), shots, 2, "d", np.random.default_rng(seed))
    conditions = ["truth", "lie"] if shots else ["neutral"]
    examples = dataset.examples(asked, form, seed)
    prompts = make_prompts(examples, "test", conditions, templates_for(dataset, form), demos, format_name, seed)
    assert len(prompts) == len(examples) * len(conditions)
    for prompt in prompts:
        text = prompt.example.texts[core]
        assert text in prompt.turn or text[:1].upper() + text[1:] in prompt.turn
        assert prompt.turn.strip() in prompt.text
        assert prompt.example.group not in prompt.demo_groups and len(set(prompt.demo_groups)) == shots


def test_hub_templates_are_used_before_the_general_ones():
    entry = hub_table()["sciq"]
    dataset = ItemDataset("sciq", "", QUIZ.items, entry.forms, entry.templates)
    assert {t.name for t in templates_for(dataset, "question", role="train")} == {"science_exam", "pupil", "textbook"}
    assert "letters" in {t.name for t in templates_for(dataset, "choice")}


def test_a_template_says_what_it_lacks():
    with pytest.raises(ConfigError, match=r"places \['nothing'\], which capitals does not have"):
        Template("t", "question", "{nothing}").turn(CAPITALS.examples(CAPITALS.groups[:9], "question", 0)[0])
