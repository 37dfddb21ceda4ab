"""System prompts: the catalogue, a user's own, and held-out ones for judged splits."""

from collections import Counter

import pytest

from adapterprobe.errors import ConfigError
from adapterprobe.prompts import system_prompts, systems_for
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.prompts.system_prompts import catalogue
from conftest import small_config
from prompts.test_prompts import made


def test_the_catalogue():
    prompts = catalogue().values()
    for condition, least in (("lie", 12), ("truth", 6)):
        mine = [p for p in prompts if p.pushes == condition]
        assert len(mine) >= least and len({p.text for p in mine}) == len(mine)
        assert 0 < sum(p.held_out for p in mine) < len(mine)
    assert len({p.kind for p in prompts if p.pushes == "lie"}) >= 8


def test_every_condition_gets_its_own_and_each_is_used():
    chosen = system_prompts("all")
    systems = {c: systems_for(chosen, c, judged=False) for c in ("truth", "lie")}
    prompts = made(systems=systems)
    for prompt in prompts:
        assert catalogue()[prompt.system_prompt].pushes == prompt.condition
        assert catalogue()[prompt.system_prompt].text in prompt.text
    used = Counter(p.system_prompt for p in prompts)
    assert set(used) == {s.name for mine in systems.values() for s in mine}
    pairs = {}
    for p in prompts:
        pairs.setdefault((p.example.group, p.condition), set()).add((p.system_prompt, p.template, p.demo_set))
    assert all(len(seen) == 1 for seen in pairs.values()), "both versions of a fact share their prompt"
    per_system = {}
    for p in prompts:
        per_system.setdefault(p.system_prompt, set()).add(p.template)
    assert all(len(templates) > 1 for templates in per_system.values())


def test_judged_splits_see_other_system_prompts(tokenizer):
    config = small_config("x", elicit={"shots": 0, "system": "all"})
    prompts, belief = prepare_prompts(config, prepare_questions(config), tokenizer)
    seen = {}
    for p in prompts:
        seen.setdefault(p.split in ("test", "ood"), set()).add(p.system_prompt)
    assert seen[True] and seen[False] and not seen[True] & seen[False]
    assert all(p.system_prompt is None for asked in (*belief.known, *belief.recalled) for p in asked)
    assert {p.instructed == p.example.truth for p in prompts if p.condition == "lie"} == {False}


def test_ones_own_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("a: {pushes: lie, text: Fib.}\nb: {pushes: truth, text: Be true.}\n")
    one, two = system_prompts(str(file))
    assert (one.name, one.pushes, one.text, two.kind) == ("a", "lie", "Fib.", "own")
    assert systems_for([one, two], "lie", judged=True) == [one], "the only sort there is serves every split"
    for content, match in (
        ("a: {pushes: fib, text: x}", "'a' needs pushes"),
        ("a: {pushes: lie}", "'a' needs pushes"),
        ("- a", "expected names"),
        ("a: [", "not YAML"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=match):
            system_prompts(str(file))


def test_refusals():
    with pytest.raises(ConfigError, match="did you mean 'con_artist'"):
        system_prompts(["con_artst"])
    with pytest.raises(ConfigError, match="cannot read"):
        system_prompts("/nowhere.yaml")
    with pytest.raises(ConfigError, match=r"all, a list of names, or a \.yaml file"):
        system_prompts("everything")
    with pytest.raises(ConfigError, match="no system prompt pushes to 'truth'"):
        prepare_questions(small_config("x", elicit={"shots": 0, "system": ["short_order"]}))
