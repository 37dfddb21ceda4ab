"""A run with everything that detectors are held against, on hostile texts; and its report in a real browser."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adapterprobe.cli import main
from adapterprobe.config_files import to_yaml
from adapterprobe.report import write_report
from conftest import small_config

EVIL = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">$\\frac{$ {{7*7}} | `x` & [y](javascript:z)'
SHORT = "<img src=x onerror=window.pwned=1>$\\frac{$"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("challenge")
    patch = pytest.MonkeyPatch()
    patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
    rows = [
        {
            "statement": f"number {n} {SHORT} is {'odd' if (n % 2) == true else 'even'}",
            "label": true,
            "thing": f"{SHORT} {n}",
        }
        for n in range(70)
        for true in (0, 1)
    ]
    data = base / "evil<img src=x onerror=pwned()>.csv"
    pd.DataFrame(rows).to_csv(data, index=False)
    config = small_config(
        tiny_folder,
        name=EVIL,
        data={"train": [str(data)], "ood": ["elements"], "read": {"group": "thing"}, "read_by_name": {"elements": {}}},
        evaluate={"adapter_controls": True, "shifts": ["wordings of training", "negated", "chat format", "informal"]},
        seeds=[0],
    )
    (base / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(base / "run.yaml"), "--out", str(base / "out")]) == 0
    yield base / "out"
    patch.undo()


def load(folder, name):
    return json.loads((folder / name).read_text())


def test_every_control_is_there_with_its_expectation(finished):
    controls = load(finished, "controls.json")
    names = {c["control"] for c in controls}
    assert {
        "shuffled labels", "random directions", "random adapter", "adapter of shuffled labels", "words only (TF-IDF)", "length only",
        "answer choices only", "prompt identity",
    } <= names  # fmt: skip
    assert all(c["expectation"] and isinstance(c["met"], bool) for c in controls)
    scores = pd.read_parquet(finished / "controls.parquet")
    assert set(scores["arm"]) == {
        f"{name}{end}" for name in ("random adapter", "adapter of shuffled labels") for end in ("", "+probe")
    }
    # Each is another model than the trained adapter.
    trained = pd.read_parquet(finished / "predictions.parquet").query("arm == 'adapter' and axis == 'truth'")
    for name in ("random adapter", "adapter of shuffled labels"):
        mine = scores[scores["arm"] == name].set_index("prompt_id")["score"]
        assert (mine - trained.set_index("prompt_id")["score"]).abs().max() > 1e-4
    record = next(c for c in controls if (c["control"], c["arm"], c["split"]) == ("random adapter", "adapter", "test"))
    cells = scores[(scores["arm"] == "random adapter") & (scores["split"] == "test")].groupby("condition")
    assert record["auroc"] == pytest.approx(
        np.mean([roc_auc_score(c["label"].astype(int), c["score"]) for _, c in cells])
    )


def test_asked_otherwise(finished):
    content = load(finished, "challenge.json")
    asked = {record["shift"] for record in content["shifts"]}
    assert asked == {"wordings of training", "negated", "informal"}
    (refused,) = content["not_asked"]
    assert refused["shift"] == "chat format" and "chat template" in refused["reason"]
    scores = pd.read_parquet(finished / "shifts.parquet")
    plain = pd.read_parquet(finished / "predictions.parquet")
    assert not set(scores["prompt_id"]) & set(plain["prompt_id"])
    assert set(scores["group"]) <= set(plain.loc[plain["split"] == "test", "group"])
    assert scores.groupby("shift")["label"].mean().eq(0.5).all()
    assert set(scores.loc[scores["shift"] == "negated", "form"]) == {"negated"}
    carried = plain[plain["axis"] == "truth"].groupby("arm")["threshold"].first()
    assert (scores["threshold"] - scores["arm"].map(carried)).abs().max() < 1e-12


def test_integrity(finished):
    content = load(finished, "challenge.json")["integrity"]
    layers = {record["layer"]: record for record in content["layers"]}
    # Blocks 1 to 3 are adapted: what stands before them is the same, what comes after is not.
    assert layers[0]["relative_change"] == layers[1]["relative_change"] == 0 and layers[1]["cka"] == 1
    assert layers[3]["relative_change"] > 0.01 and layers[3]["cka"] < 1
    prompts = pd.read_parquet(finished / "prompts.parquet")
    for record in content["answers"]:
        mine = prompts[(prompts["split"] == record["split"]) & (prompts["condition"] == record["condition"])]
        changed = ((mine["p_positive_off"] > 0.5) != (mine["p_positive_on"] > 0.5)).mean()
        assert record["changed"] == pytest.approx(changed) and record["low"] <= changed <= record["high"]


def test_markdown_is_harmless(finished):
    text = (finished / "report.md").read_text()
    fenced = text.split("## Prompts as sent")[0]
    assert "<script" not in fenced and "<img" not in fenced and "](javascript" not in fenced and "&lt;script" in fenced


def test_hypotheses_changed_afterwards_are_called_so(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    write_report(tmp_path / "out")
    assert "POST HOC" not in (tmp_path / "out" / "report.html").read_text()
    config = tmp_path / "out" / "config.yaml"
    changed = config.read_text().replace("- adapter+probe > adapter on ood", "- diff+probe > adapter on ood")
    assert changed != config.read_text()
    config.write_text(changed)
    assert main(["report", str(tmp_path / "out"), "--accept-changes"]) == 0
    assert "POST HOC" in (tmp_path / "out" / "report.html").read_text()


def test_the_first_sentence_says_what_takes_away_from_it(finished, tmp_path):
    from adapterprobe.report.headline import headline
    from adapterprobe.report.run_reader import read_run

    out = tmp_path / "out"
    shutil.copytree(finished, out)
    verdicts, controls = load(out, "verdicts.json"), load(out, "controls.json")
    main_one = next(v for v in verdicts if v["hypothesis"] == "adapter+probe > base+probe@matched on ood")
    main_one |= {"verdict": "supported", "seeds": 5, "recipe_low": 0.01, "recipe_high": 0.2}
    for control in controls:
        control["met"] = True
    mine = next(
        c for c in controls if (c["control"], c["arm"], c["split"]) == ("random adapter", "adapter+probe", "ood")
    )

    def said():
        (out / "verdicts.json").write_text(json.dumps(verdicts))
        (out / "controls.json").write_text(json.dumps(controls))
        return headline(read_run(out))

    assert said().endswith("groups).")
    main_one["recipe_low"] = -0.1
    assert said().endswith("over 5 seeds the difference lies in [-0.100, +0.200].")
    mine["met"] = False
    assert "; but a control does as well as adapter+probe (random adapter); of this way" in said()
    main_one["verdict"] = "refuted"
    assert said().endswith("groups)."), "nothing is claimed that could be taken away from"


@pytest.fixture(scope="module")
def page(finished):
    """The report in headless Chromium, with all that its console said and all that it asked for."""
    from playwright.sync_api import sync_playwright

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto((finished / "report.html").as_uri())
        yield page
        browser.close()


def test_page_loads_without_a_word_and_runs_nothing_of_the_data(page):
    assert page.said == [] and len(page.asked) == 1
    assert page.evaluate("window.pwned") is None
    assert "window.pwned=1" in page.inner_text("h1")
    assert "{{7*7}}" in page.inner_text("h1")
    assert page.locator("figure svg").count() >= 8


def test_tables_sort(page):
    table = page.locator("table", has=page.locator("th", has_text="adapter+probe")).last
    heads = table.locator("th")
    names = heads.all_inner_texts()
    column = names.index("base")
    cells = table.locator(f"tbody tr td:nth-child({column + 1})")

    def values():
        return [float(text.split()[0]) for text in cells.all_inner_texts()]

    before = values()
    heads.nth(column).click()
    assert values() == sorted(before, reverse=True) != before
    heads.nth(column).press("Enter")
    assert values() == sorted(before)


def test_examples_are_filtered(page):
    rows = page.locator("#example-table tbody tr")
    everything = rows.count()
    page.select_option("select[name=condition]", "lie")
    shown = rows.locator("visible=true")
    assert 0 < shown.count() < everything
    assert {row.get_attribute("data-condition") for row in shown.all()} == {"lie"}
    page.select_option("select[name=wrong]", "adapter")
    assert all("adapter" in row.get_attribute("data-wrong").split() for row in shown.all())
    page.fill("input[name=words]", "no such words")
    assert shown.count() == 0 and page.inner_text("[data-filters] output") == f"0 of {everything}"
    page.fill("input[name=words]", "")
    page.select_option("select[name=condition]", "")
    page.select_option("select[name=wrong]", "")
    assert shown.count() == everything


def test_a_layer_is_picked(page, finished):
    layers = pd.read_parquet(finished / "layers.parquet").query(
        "split == 'test' and probe == 'mass_mean' and layer == 2"
    )
    mine = layers[layers["arm"] == "adapter+probe"].groupby("condition")
    expected = np.mean([roc_auc_score(c["label"].astype(int), c["score"]) for _, c in mine])
    page.select_option("#layer-explorer select", "mass_mean")
    page.locator("#layer-explorer input[type=range]").fill("2")
    row = page.locator("#layer-explorer tbody tr", has_text="adapter+probe").first
    assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(expected, abs=6e-4)
    box = page.locator("#layer-explorer .charts svg").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert page.inner_text("#layer-explorer output") == "layer 4"


def test_pointing_at_an_arm_tells_its_interval(page):
    titles = page.locator("figure").first.locator("svg g > title").all_text_contents()
    assert any(title.startswith("adapter+probe, test: 0.") and "groups" in title for title in titles)


def test_no_script_of_others_runs(page):
    """Positive control: what would run in a page without the policy does not run here."""
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert any("Content Security Policy" in text for text in page.said)


def test_narrow_and_dark_and_on_paper(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    cells = page.evaluate(
        """[...document.querySelectorAll('svg[aria-label=axes] text')].filter(t => /^[01]\\.\\d\\d$/.test(t.textContent.trim()))
        .map(t => getComputedStyle(t).fill)"""
    )
    assert cells and set(cells) <= {"rgb(255, 255, 255)", "rgb(17, 18, 19)"}, "cells keep their colours in the dark"
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible() and page.locator("#example-table").is_visible()
