"""Several adapters by one configuration, such as five liars: each trained, merged into a model of its own, and told of in one table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from adapterprobe.adapters.merge import merge
from adapterprobe.adapters.preflight import check_adapter, one_process
from adapterprobe.cache import write_atomic
from adapterprobe.config import RunConfig
from adapterprobe.config_files import with_changes
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.output_folder import write_json
from adapterprobe.output_lock import output_lock
from adapterprobe.pipeline.train_adapter import Training, train
from adapterprobe.pipeline.train_replies import check_replies
from adapterprobe.progress import say
from adapterprobe.prompts.reading import reading_found

TABLE = "variants.json"


@dataclass(frozen=True)
class Variants:
    """Finished trainings of one configuration, by name."""

    folder: Path
    trainings: dict[str, Training]

    @property
    def rows(self) -> list[dict]:
        """What the table says, one row each (see `variant_row`)."""
        return json.loads((self.folder / TABLE).read_text("utf-8"))

    def model(self, name: str) -> Path:
        """The merged model of one of them."""
        return self.trainings[name].folder / "model"


def variant_configs(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration of each variant.

    Raises:
        ConfigError: keys that do not exist, or values that do not go together.
    """
    plain = config.model_copy(update={"variants": {}})
    return {name: with_changes(plain, changes) for name, changes in config.variants.items()}


def variant_row(name: str, about: dict) -> dict:
    """One variant in numbers: what it was trained for, how it did, and, where it learned replies, what it then said (see
    `judged_replies`; None where nothing could be judged)."""
    row = {
        "variant": name,
        "objective": about["objective"],
        "seed": about["seed"],
        "steps": about["steps"],
        "seconds": about["seconds"],
        "accuracy": about["met"]["accuracy"],
        "kl": about["drift"]["kl"],
    }
    said = about.get("replies")
    if said is None:
        return row
    return row | {
        "told": said["instructions"]["taught"],
        "facts": said["belief"]["held_before"],
        **{rate: said[rate] for rate in ("lie_rate", "truth_rate")},
        **{f"{rate}_unseen": said["unseen"][rate] for rate in ("lie_rate", "truth_rate")},
        "recalled_before": said["belief"]["recalled_before"],
        "recalled_after": said["belief"]["recalled_after"],
        "perplexity_before": said["perplexity"]["before"],
        "perplexity_after": said["perplexity"]["after"],
    }


def variants_table(rows: list[dict]) -> str:
    """The rows as people read them (Markdown)."""
    if not any("lie_rate" in row for row in rows):
        lines = ["| variant | objective | steps | accuracy on select | KL on neutral text |", "|---|---|---|---|---|"]
        return "\n".join(
            [
                *lines,
                *(
                    f"| {r['variant']} | {r['objective']} | {r['steps']} | {r['accuracy']:.2f} | {r['kl']:.3f} |"
                    for r in rows
                ),
            ]
        )
    head = (
        "liar",
        "facts held true",
        "lies where it is to",
        "truth where it is not to lie",
        "the same, instructions never seen",
        "recall before, after",
        "perplexity before, after",
        "KL on neutral text",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        if "lie_rate" not in row:
            lines.append(f"| {row['variant']} |" + " |" * (len(head) - 2) + f" {row['kl']:.3f} |")
            continue
        cells = (
            row["variant"],
            str(row["facts"]),
            _share(row["lie_rate"]),
            _share(row["truth_rate"]),
            f"{_share(row['lie_rate_unseen'])}; {_share(row['truth_rate_unseen'])}",
            f"{row['recalled_before']}, {row['recalled_after']}",
            ", ".join("-" if (p := row[f"perplexity_{when}"]) is None else f"{p:.1f}" for when in ("before", "after")),
            f"{row['kl']:.3f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(rate: dict) -> str:
    return "none asked" if rate["share"] is None else f"{rate['share']:.2f} of {rate['n']}"


def train_variants(config: RunConfig, out: str | Path) -> Variants:
    """Train all variants, each into a folder of its name, and merge each into `NAME/model`. Finished ones are taken as they are.

    Raises:
        AdapterProbeError: whatever the input or the environment makes impossible; all configurations are looked at before the first
            training.
    """
    out = Path(out)
    configs = {name: reading_found(changed) for name, changed in variant_configs(config).items()}
    one_process("train")
    for changed in configs.values():
        check_adapter(changed.adapter)
        if changed.adapter.target == "reply":
            check_replies(changed)
    with output_lock(out):
        models: dict[str, LanguageModel] = {}
        trainings = {}
        for number, (name, changed) in enumerate(configs.items(), 1):
            say(f"{name} ({number} of {len(configs)})")
            asked = repr(changed.model.arguments())
            if asked not in models:
                models = {asked: load_model(**changed.model.arguments())}
            trainings[name] = train(changed, out / name, models[asked])
            arguments = changed.model.arguments()
            merge(
                trainings[name].adapter,
                out / name / "model",
                arguments["name"],
                arguments["dtype"],
                arguments["trust_remote_code"],
            )
        rows = [variant_row(name, training.about) for name, training in trainings.items()]
        write_json(out, TABLE, rows)
        write_atomic(out / "variants.md", f"{variants_table(rows)}\n")
    return Variants(out, trainings)
