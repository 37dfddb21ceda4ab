"""After the first training seed there is a report, and what it says is what a run of that seed alone says."""

import re
import sys

import pytest

from adapterprobe.cli import main
from adapterprobe.config_files import to_yaml
from adapterprobe.pipeline import run as run_of_a_config
from adapterprobe.pipeline.preliminary import to_come, wants_preliminary
from adapterprobe.report.run_reader import read_run
from conftest import small_config


@pytest.fixture(autouse=True)
def _cache(finished_run, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))


def test_the_first_verdicts_stand_before_the_second_training(tiny_folder, tmp_path, monkeypatch, capsys):
    config = small_config(tiny_folder, evaluate={"preliminary": True, "resamples": 2000})
    out = tmp_path / "out"
    module = sys.modules["adapterprobe.pipeline.run"]
    real = module.trained_adapter

    def stopped(*args, **more):
        if args[5] == 1:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr(module, "trained_adapter", stopped)
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(out)]) == 130
    said = capsys.readouterr().err
    assert "seed 0, preliminary" in said and "adapter+probe > base+probe@matched on ood" in said
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert (
        "Still to come: training seeds 1; probes mass_me" in text
        and "do not stop it" in page
        and page.count("<svg") == 1
    )
    alone = run_of_a_config(config.model_copy(update={"seeds": [0]}), tmp_path / "alone")
    results = read_run(alone.folder)
    for arm in results.arms:
        found = results.result("ood", arm)
        assert f"{found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in text, arm
    for verdict in results.verdicts:
        assert f"{verdict['difference']:+.3f} [{verdict['low']:+.3f}, {verdict['high']:+.3f}]" in text
    # The run goes on, and its own report takes the place of this one.
    monkeypatch.setattr(module, "trained_adapter", real)
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(out)]) == 0
    whole = (out / "report.html").read_text()
    assert "Preliminary" not in whole and len(re.findall("<svg", whole)) > 3
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(out)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_when_there_is_something_to_wait_for(tiny_folder):
    config = small_config(tiny_folder, evaluate={"preliminary": True})
    assert wants_preliminary(config)
    assert not wants_preliminary(config.model_copy(update={"seeds": [3]}))
    told = to_come(small_config(tiny_folder, probes=["logistic", "mass_mean"], seeds=[2, 5, 7]), [2])
    assert told[:2] == ["training seeds 5, 7", "probes mass_mean"]
