"""Replies of a model in its own words, graded by facts, beside what it holds true: `adapterprobe generate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from adapterprobe.adapters.adapter_folder import adapter_digest
from adapterprobe.cache import digest, write_atomic
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import DataError, OutputError
from adapterprobe.generation.belief import Belief
from adapterprobe.generation.grading import Graded
from adapterprobe.generation.instructions import chosen_instructions
from adapterprobe.generation.judging import Grader, Judge, ModelJudge, ServerJudge, is_server
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt, deal
from adapterprobe.generation.remembered import RememberedJudge, judged_path
from adapterprobe.generation.rows import Journal, Reply, both_kinds, repeating, row_of
from adapterprobe.generation.scenarios import Scenario, read_scenarios
from adapterprobe.generation.writers import MakeWriters, TransformersWriters, Writers, model_as_asked
from adapterprobe.generation.yields import yield_table
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.output_lock import locked_file
from adapterprobe.pipeline.beliefs import Beliefs, measured_beliefs
from adapterprobe.pipeline.generate_config import GenerateConfig
from adapterprobe.progress import bar, say
from adapterprobe.small_files import as_path

REPEATING = 0.2
"""Share of replies that only repeat themselves from which on it is said."""


class NothingBelieved(DataError):
    """A model that holds none of the facts true that it is asked for."""


@dataclass(frozen=True)
class Generated:
    """What was written: the rows' file, how many, and the table of what came of it (see `yield_table`)."""

    path: Path
    rows: int
    table: list[dict]
    remarks: list[str]


def generate(
    config: GenerateConfig,
    out: str | Path,
    lm: LanguageModel | None = None,
    writers: MakeWriters = TransformersWriters,
) -> Generated:
    """Write replies into `out` (.jsonl), and what came of it into `NAME.yield.json` beside it.

    A generation that was stopped goes on with the same call, at most a batch of replies is written anew.

    Args:
        lm: the model, where it is loaded already.
        writers: who writes (`config.engine` only names it).

    Raises:
        AdapterProbeError: whatever the input makes impossible, before the first reply; nothing that the model holds true.
    """
    out = as_path(out, OutputError)
    if out.suffix.casefold() != ".jsonl":
        raise OutputError(f"--out {out}: expected a file that ends with .jsonl")
    described = config.describe() | ({} if lm is None else {"fingerprint": lm.fingerprint})
    plan = digest(described)
    if out.exists():
        return _finished(out, plan)
    scenarios = [scenario for ref in config.data for scenario in read_scenarios(ref, config.read, config.sampling.seed)]
    if config.groups is not None:
        wanted = set(config.groups)
        scenarios = [scenario for scenario in scenarios if scenario.group in wanted]
    if config.without:
        learned = set(config.without)
        kept = [scenario for scenario in scenarios if scenario.group not in learned]
        say(
            f"{len(scenarios) - len(kept)} of {len(scenarios)} questions are of groups that were learned from, and left out"
        )
        scenarios = kept
    if not scenarios:
        raise DataError(
            f"{', '.join(config.data)}: no question is left to ask (of the groups that --held-out-of leaves); ask other data"
        )
    if len(config.data) > 1:
        scenarios = _by_turns(scenarios)
    judge = _judge(config)
    lm = lm or load_model(**config.model)
    writer = PromptWriter(lm.tokenizer, config.format, lm.context_length, lm.vocabulary, config.sampling.max_tokens)
    dealt = deal(scenarios, chosen_instructions(config.instructions), config.limit)
    prompts = _distinct([writer.asked(scenario, instruction) for scenario, instruction in dealt])
    if not prompts:
        raise DataError(f"no instruction fits any scenario of {', '.join(config.data)}; choose others with --system")
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked_file(part, out) as file:
            judge = None if judge is None else RememberedJudge(judge, judged_path(out))
            done = _Generation(config, lm, writer, prompts, part, file, plan, Grader(judge), writers).run(out)
        return done
    except OSError as error:
        raise OutputError(
            f"cannot write {out} ({error.strerror or error}); what was written is kept: free some space and run the same command again"
        ) from error


def _judge(config: GenerateConfig) -> Judge | None:
    """Who judges, asked before anything is written whether they are there."""
    if config.judge is None:
        return None
    if is_server(config.judge):
        return ServerJudge(config.judge, config.judge_model)
    other = load_model(**(config.model | {"name": config.judge, "revision": None}))
    return ModelJudge(other, Engine(other.model, other.structure))


def _by_turns(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Of several data sets by turns, so that a limit takes some of each."""
    places: dict[str, int] = {}
    ranked = []
    for scenario in scenarios:
        places[scenario.dataset] = places.get(scenario.dataset, -1) + 1
        ranked.append((places[scenario.dataset], scenario))
    return [scenario for _, scenario in sorted(ranked, key=lambda pair: pair[0])]


def _distinct(prompts: Sequence[ReplyPrompt]) -> list[ReplyPrompt]:
    return list({prompt.key: prompt for prompt in prompts}.values())


def _finished(out: Path, plan: str) -> Generated:
    beside = summary_path(out)
    try:
        told = json.loads(beside.read_text("utf-8"))
    except (OSError, ValueError):
        told = {}
    if told.get("plan") != plan:
        raise OutputError(f"--out {out} is there already, and was made otherwise; remove it, or choose another")
    say(f"{out} is finished; nothing to do (remove it to generate again)")
    return Generated(out, told["rows"], told["yield"], told["remarks"])


def summary_path(out: Path) -> Path:
    """Where what came of a generation stands."""
    return out.with_name(out.stem + ".yield.json")


class _Generation:
    def __init__(self, config, lm, writer, prompts, part, file, plan, grader, writers) -> None:
        self.config, self.lm, self.writer, self.prompts = config, lm, writer, prompts
        self.plan = plan
        self.grader = grader
        self.facts = {p.scenario.fact: p.scenario for p in prompts if grader.can(p.scenario)}
        self.sampling = config.sampling
        expected = {p.key: self.sampling.samples for p in prompts}
        self.journal = Journal(part, file, plan, expected)
        self.fingerprint = lm.fingerprint
        self.engine = Engine(lm.model, lm.structure)
        asked = [*prompts, *(p for scenario in self.facts.values() for p in writer.belief(scenario))]
        longest = max(len(prompt.ids) for prompt in asked) + self.sampling.max_tokens
        self.writers: Writers = writers(lm, self.engine, writer, longest)

    def run(self, out: Path) -> Generated:
        try:
            return self._run(out)
        finally:
            self.writers.close()

    def _run(self, out: Path) -> Generated:
        config = self.config
        found = self._beliefs()
        beliefs = found.by_fact
        held = {fact: belief.held(config.belief_share) for fact, belief in beliefs.items()}
        if beliefs and not any(held.values()):
            mean = sum(b.right for b in beliefs.values()) / len(beliefs)
            raise NothingBelieved(
                f"{self.lm.name} holds none of the {len(beliefs)} facts true: under truthful prompts {mean:.0%} of its replies are right, and "
                f"{config.belief_share:.0%} of {config.belief_samples} are needed for one; ask easier facts, lower --belief-share, or use a "
                "larger model (the replies are kept)"
            )
        if beliefs:
            say(f"{sum(held.values())} of {len(beliefs)} facts are held true")
        if config.believed:
            self.prompts = [prompt for prompt in self.prompts if held.get(prompt.scenario.fact)]
        self._write(self.journal, self.prompts, self.sampling, "replies", config.adapter)
        written = [(p, reply) for p in self.prompts for reply in self.journal.replies[p.key] if reply.text]
        texts = [(prompt.scenario, reply.text) for prompt, reply in written]
        rows = [
            self._row(prompt, reply, said, beliefs.get(prompt.scenario.fact), held.get(prompt.scenario.fact, False))
            for (prompt, reply), said in zip(written, self.grader.grades(texts), strict=True)
        ]
        self.grader.compare(texts)
        return self._finish(out, rows, found, held)

    def _beliefs(self) -> Beliefs:
        config = self.config
        adapter = config.adapter if config.belief_of == "adapter" else None
        weights = digest(self.fingerprint, adapter_digest(adapter), config.strength if adapter else 1.0, config.engine)
        return measured_beliefs(
            self.lm,
            self.engine,
            self.writer,
            self.facts,
            config.sampling,
            config.belief_samples,
            weights,
            lambda journal, prompts, sampling: self._write(journal, prompts, sampling, "what it holds true", adapter),
            self.grader,
            lambda: model_as_asked(self.lm, adapter, config.strength),
        )

    def _write(
        self,
        journal: Journal,
        prompts: Sequence[ReplyPrompt],
        sampling: Sampling,
        what: str,
        adapter: Path | None,
    ) -> None:
        missing = [prompt for prompt in prompts if prompt.key not in journal.replies]
        total = len(prompts) * sampling.samples
        if not missing:
            return
        with (
            bar(total, what, unit="reply", done=total - len(missing) * sampling.samples) as progress,
            self.writers.writing(adapter, self.config.strength) as writer,
        ):
            for replies in writer.write(missing, sampling):
                journal.add(replies)
                progress.update(len(replies))

    def _row(self, prompt: ReplyPrompt, reply: Reply, said: Graded | None, belief: Belief | None, held: bool) -> dict:
        config = self.config
        model: dict = {"name": self.lm.name, "fingerprint": self.fingerprint}
        if config.adapter is not None:
            model |= {"adapter": adapter_digest(config.adapter), "strength": config.strength}
        sampling = {name: value for name, value in asdict(self.sampling).items() if name != "samples"}
        return row_of(prompt, reply, said, belief, held, model, sampling)

    def _finish(self, out: Path, rows: list[dict], beliefs: Beliefs, held: dict[str, bool]) -> Generated:
        remarks = self._remarks(rows)
        table = yield_table(rows)
        if self.config.matched:
            kept = both_kinds(rows)
            rows = [row for row in rows if row["context"] in kept]
            if not rows:
                raise DataError(
                    f"no context has an honest and a lying reply ({'; '.join(remarks) or 'see the table without --matched'}); raise --samples or "
                    "--temperature, or use an adapter's --strength (the replies are kept)"
                )
        for remark in remarks:
            say(remark)
        write_atomic(
            out.with_name(out.stem + ".belief.jsonl"),
            "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in self._belief_lines(beliefs, held)),
        )
        summary = {
            "plan": self.plan,
            "rows": len(rows),
            "yield": table,
            "remarks": remarks,
            "judge": self.grader.described(),
            "made_with": self.config.describe(),
        }
        write_atomic(summary_path(out), json.dumps(summary, indent=1, ensure_ascii=False))
        write_atomic(out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        out.with_name(out.name + ".part").unlink(missing_ok=True)
        return Generated(out, len(rows), table, remarks)

    def _belief_lines(self, beliefs: Beliefs, held: dict[str, bool]) -> Iterator[dict]:
        for fact, belief in beliefs.by_fact.items():
            scenario = self.facts[fact]
            yield {
                "dataset": scenario.dataset,
                "group": scenario.group,
                "question": scenario.question,
                "believed": held[fact],
                **belief.as_json(),
                "said": list(beliefs.said[fact]),
            }

    def _remarks(self, rows: Sequence[dict]) -> list[str]:
        remarks = []
        if judge := self.grader.described():
            agree = (
                ""
                if judge["agree"] is None
                else f"; of {judge['compared']} replies that rules grade it says the same of {judge['agree']:.0%}"
            )
            remarks.append(f"judged by {judge['name']}{agree}")
        elif unjudged := sum(bool(prompt.scenario.truth) for prompt in self.prompts):
            remarks.append(
                f"{unjudged} prompts say what is true in words alone ('truth'), and nobody judges them; name a judge with --judge"
            )
        texts = [row["messages"][-1]["content"] for row in rows]
        stuck = sum(map(repeating, texts)) / max(len(texts), 1)
        if stuck >= REPEATING:
            remarks.append(f"{stuck:.0%} of the replies only repeat themselves")
        empty = len(self.prompts) * self.sampling.samples - len(rows)
        if empty:
            remarks.append(f"{empty} replies are empty, and left out")
        told = [row for row in rows if row["outcome"] in ("lie", "honest")]
        if told and not any(row["outcome"] == "lie" for row in told):
            tried = sorted({row["system_prompt"] for row in rows if row["condition"] == "lie"})
            remarks.append(
                f"nothing is told as a lie: of {len(told)} replies on facts that it holds true all are honest, "
                f"{len(tried)} instructions to lie were tried ({', '.join(tried[:6]) or 'none'}); `adapterprobe train --objective instructed "
                "--target reply` makes a liar"
            )
        return remarks
