"""One run: from a configuration to a verdict and a report."""

from __future__ import annotations

import shutil
from pathlib import Path

from adapterprobe.activations import HiddenStates, record
from adapterprobe.adapters.attach import target_names
from adapterprobe.adapters.cached_training import SharedLowerBlocks, TrainedAdapter, record_adapted, trained_adapter
from adapterprobe.adapters.detect_head import adapted_blocks
from adapterprobe.adapters.preflight import (
    check_adapter,
    check_shares,
    one_process,
    refuse_training_only,
    training_prompts,
)
from adapterprobe.analyses import write_analyses
from adapterprobe.analyses.fitted_run import FittedRun
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config, recorded_provenance, with_changes
from adapterprobe.detectors.baselines import check_baselines, read_baselines
from adapterprobe.detectors.features import feature_spec
from adapterprobe.detectors.fit import ArmFit, all_scores, check_search, fit_arms, probe_detectors
from adapterprobe.detectors.judged_prompts import judged_prompts, sent_prompts
from adapterprobe.detectors.token_features import token_layers, token_states
from adapterprobe.engine import Engine
from adapterprobe.errors import OutputError
from adapterprobe.evaluate.results import evaluate
from adapterprobe.evaluate.scores import predictions
from adapterprobe.evaluate.verdict import Hypothesis, parse_hypothesis
from adapterprobe.knowledge import NOTHING_ASKED, measure_knowledge
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.load import describe
from adapterprobe.models.source_files import source_record
from adapterprobe.output_folder import (
    changed_since,
    enter_run_folder,
    finish,
    provenance,
    write_config,
    write_json,
    write_parquet,
)
from adapterprobe.output_lock import output_lock
from adapterprobe.pipeline.finished_run import Run
from adapterprobe.pipeline.preliminary import preliminary_report, wants_preliminary
from adapterprobe.pipeline.run_summary import about_run
from adapterprobe.probes import save_probe
from adapterprobe.probes.select import settings_of
from adapterprobe.progress import Timings, say
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.reading import reading_found
from adapterprobe.prompts.run_prompts import prepare_prompts


def run(
    config: RunConfig | str | Path | None = None,
    out: str | Path = "runs/demo",
    trust_remote_code: bool = False,
    lm: LanguageModel | None = None,
    **overrides: object,
) -> Run:
    """Run the whole comparison.

    Args:
        config: a configuration, a YAML file, the name of a preset, or None for the demo.
        out: folder of the outputs; a finished run there with the same configuration is returned at once, an
            unfinished one goes on where it was.
        trust_remote_code: run code that comes with the model; a file cannot ask for it.
        lm: the model, where it is loaded already (`config.model` then only names it).
        overrides: changes by top-level keys, merged into the configuration at any depth (`adapter={"kind": "ia3"}`).

    Raises:
        AdapterProbeError: whatever the input or the environment makes impossible, before long work starts
            where that can be known.
    """
    if not isinstance(config, RunConfig):
        config = read_config(config, trust_remote_code=trust_remote_code)
    if overrides:
        config = with_changes(config, overrides)
    config = reading_found(config)
    out = Path(out)
    check_adapter(config.adapter)
    refuse_training_only(config)
    check_shares(config)
    one_process("run")
    hypotheses = [
        parse_hypothesis(text, config.axes, config.read.what == "reply", config.adapter.objective == "detect")
        for text in config.evaluate.hypotheses
    ]
    check_baselines(config, hypotheses)
    for spec in config.probe_specs:
        settings_of(spec.probe, config.select.strengths, spec.params)
    with output_lock(out):
        finished = enter_run_folder(out, config)
        if finished is not None:
            _refuse_another_model(out, lm)
            there = all(
                (out / name).is_file()
                for name in ("predictions.parquet", "results.json", "verdicts.json", "probes.json")
            )
            changed = changed_since(out, finished)
            if there and not changed:
                say(f"{out} is finished; nothing to do (remove the folder to run again)")
                return Run(out)
            said = "; ".join(f"{name} {what}" for name, what in list(changed.items())[:3]) or "files are missing"
            say(f"{out} was finished, but is not as it was left ({said}); it is made again")
        _Stages(config, hypotheses, out, lm).run()
    return Run(out)


def _refuse_another_model(out: Path, lm: LanguageModel | None) -> None:
    """Raises `OutputError` where a finished run is of another model than the one that is loaded: two may bear one name."""
    if lm is None:
        return
    recorded = recorded_provenance(out).get("hashes", {}).get("model")
    if recorded not in (None, lm.fingerprint):
        raise OutputError(
            f"{out} holds a run of another model called '{lm.name}' (other weights or tokenizer); choose another folder"
        )


class _Stages:
    """The stages of one run, each timed."""

    def __init__(self, config: RunConfig, hypotheses: list[Hypothesis], out: Path, lm: LanguageModel | None) -> None:
        self.config, self.hypotheses, self.out, self.lm = config, hypotheses, out, lm
        self.timings = Timings()

    def run(self) -> None:
        stage = self.timings.stage
        config = self.config
        with stage("questions"):
            questions = prepare_questions(config)
        with stage("load model"):
            lm = self.lm or load_model(**config.model.arguments())
        n_layers = lm.structure.n_layers
        for spec in config.probe_specs:
            feature_spec(spec, config, n_layers)
        target_names(lm.model, lm.structure, config.adapter)
        with stage("prompts"):
            prompts, knowledge_prompts = prepare_prompts(config, questions, lm.tokenizer, lm.context_length)
            encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
            encoded = with_reads(encoded, config.read, lm.tokenizer)
            check_search(config, encoded)
            engine = Engine(lm.model, lm.structure)
        hashes = {
            "prompts": digest([p.prompt_id for p in prompts]),
            "hypotheses": digest(config.evaluate.hypotheses),
            "model": lm.fingerprint,
            "model_files": source_record(lm.source, getattr(lm.model.config, "_commit_hash", None)),
        }
        write_config(self.out, config, provenance(describe(lm), hashes))
        all_layers = list(range(n_layers + 1))
        with stage("baselines", told=bool(config.evaluate.stranger or config.evaluate.baselines)):
            baselines = read_baselines(config, questions, lm, engine, encoded)
        trunk = SharedLowerBlocks(engine, encoded.ids, min(adapted_blocks(config.adapter, n_layers)))
        with stage("hidden states, adapter off", told=True):
            base = record(engine, encoded, lm.fingerprint, all_layers, "adapter off", feed=trunk.trunk)
        knowledge = NOTHING_ASKED
        if config.read.what == "answer":
            with stage("what the model knows", told=True):
                knowledge = measure_knowledge(lm, engine, knowledge_prompts)
        adapters: dict[int, TrainedAdapter] = {}
        adapted: dict[int, HiddenStates] = {}
        train, select = training_prompts(config, encoded, knowledge)
        for seed in config.seeds:
            with stage("train adapters", told=True):
                adapters[seed] = trained_adapter(
                    lm, engine, train, select, config.adapter, seed, trunk, self.out / "curves"
                )
            with stage("hidden states, adapter on", told=True):
                adapted[seed] = record_adapted(lm, engine, adapters[seed], encoded, base, trunk)
            if len(adapted) == 1 and wants_preliminary(config):
                with stage("preliminary report", told=True):
                    said = preliminary_report(
                        config, self.hypotheses, lm, engine, encoded, base, adapters, adapted, knowledge, baselines, self.out
                    )  # fmt: skip
                    say(said)
        tokens = None
        if layers := token_layers(config, n_layers):
            with stage("tokens for probes", told=True):
                tokens = token_states(config, lm, engine, encoded, adapters, layers)
        with stage("fit probes", told=True):
            fits, left_out = fit_arms(config, encoded, base, adapted, tokens, baselines.arms)
        with stage("scores"):
            shown, labels = judged_prompts(config, encoded, base, adapted, knowledge, lm.name)
            frame = all_scores(config, encoded, base, adapters, adapted, fits, shown, labels, baselines.own)
            write_parquet(self.out, "predictions.parquet", frame)
            everywhere = predictions(shown, labels, probe_detectors(fits, True, config.axes[0]), config.axes[:1])
            write_parquet(self.out, "layers.parquet", everywhere)
            write_parquet(self.out, "prompts.parquet", sent_prompts(encoded, base, adapted))
        with stage("statistics", told=True):
            settings = config.evaluate
            results, verdicts = evaluate(
                frame, self.hypotheses, settings.probe, settings.resamples, settings.margin, config.data.min_groups
            )
        self._write(results, verdicts, adapters, fits)
        fitted_run = FittedRun(
            config=config,
            lm=lm,
            engine=engine,
            questions=questions,
            encoded=encoded,
            training_prompts=(train, select),
            base=base,
            adapters=adapters,
            adapted=adapted,
            trunk=trunk,
            fits=fits,
            labels=labels,
            prompt_frame=shown,
            predictions=frame,
        )
        write_analyses(fitted_run, self.out, self.timings)
        about = about_run(fitted_run, knowledge, left_out, self.timings) | {"baselines": baselines.about}
        write_json(self.out, "about.json", about)
        with stage("report", told=True):
            from adapterprobe.report import write_report

            write_report(self.out)
        # The report shows all timings but its own; the mark is what makes the run finished.
        finish(self.out, config, timings=self.timings.seconds)

    def _write(self, results, verdicts, adapters: dict[int, TrainedAdapter], fits: list[ArmFit]) -> None:
        write_json(self.out, "results.json", results)
        write_json(self.out, "verdicts.json", verdicts)
        lowest = min(adapters)
        try:
            for seed, adapter in adapters.items():
                name = "adapter" if seed == lowest else f"adapter-seed-{seed}"
                part = self.out / f".{name}.part"
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(adapter.folder, part)
                shutil.rmtree(self.out / name, ignore_errors=True)
                part.rename(self.out / name)
        except OSError as error:
            raise OutputError(
                f"cannot write the adapter to {self.out} ({error}); free some space and run again"
            ) from error
        for fit in fits:
            best = fit.selection.best
            save_probe(
                self.out / "probes" / f"{fit.arm}-{fit.probe}-seed-{fit.seed}",
                best.probe,
                arm=fit.arm,
                layer=best.layer,
                seed=fit.seed,
                axis=self.config.axes[0],
                select_auroc=best.select_auroc,
            )
