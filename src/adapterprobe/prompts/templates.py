"""The general ways to put a question. A data set's own templates go first; of these, the ones serve whose fields it has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib import resources

import yaml

from adapterprobe.data.examples import ExampleSource
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.types import Template, parse_templates

TEMPLATES = parse_templates(
    yaml.safe_load((resources.files("adapterprobe.prompts") / "templates.yaml").read_text("utf-8"))
)


def templates_for(
    dataset: ExampleSource, form: str, names: Sequence[str] | None = None, role: str | None = None
) -> list[Template]:
    """The templates of a data set in a form.

    Args:
        names: only these of the tested ones, or patterns of one's own (whatever has braces), such as
            `"Is this so: {statement}?"`.
        role: those of one role; of tested roles all the others where there is none of it. None: all but those of belief.

    Raises:
        ConfigError: the data set has no such form, a name is unknown, or a pattern places nothing that tells one example
            from another.
    """
    mine = [t for t in dataset.templates if t.form == form] or [t for t in TEMPLATES if t.form == form]
    has = dataset.fields | ({"first", "second"} if form == "choice" else set())
    known = {t.name: t for t in mine if (t.role == "belief") == (role == "belief") and t.fields <= has}
    if form not in dataset.forms or not known:
        raise ConfigError(f"'{dataset.name}' cannot be asked in the form '{form}'; it has {', '.join(dataset.forms)}")
    chosen = list(known.values())
    if names is not None:
        chosen = [_named(name, form, known, dataset, has) for name in names]
    if role is None:
        return chosen
    # Without any for tuning the wordings of training serve; those of the judged splits never do both.
    for roles in ((role,), ("train",) if role != "judge" else ("train", "tune")):
        if found := [template for template in chosen if template.role in roles]:
            return found
    return chosen


def _named(name: str, form: str, known: dict[str, Template], dataset: ExampleSource, has: Collection[str]) -> Template:
    if "{" in name:
        template = Template(name, form, name)
        strange = sorted(template.fields - set(has))
        if strange:
            raise ConfigError(
                f"template {name!r} places {{{strange[0]}}}{nearest(strange[0], has)}; '{dataset.name}' has {sorted(has)}"
            )
        core = [t.fields for t in known.values()]
        if not any(fields <= template.fields for fields in core):
            needed = " or ".join(sorted({" with ".join(f"{{{f}}}" for f in sorted(fields)) for fields in core}))
            raise ConfigError(f"template {name!r} does not place the question; for '{dataset.name}' it needs {needed}")
        return template
    if name not in known:
        raise ConfigError(
            f"no template '{name}' for the form '{form}' of '{dataset.name}'{nearest(name, known)}; there are "
            f"{', '.join(known)}, or give a pattern of your own with braces"
        )
    return known[name]


def demo_templates(
    templates: Sequence[Template], owner: ExampleSource, asked: ExampleSource
) -> dict[str, Template] | None:
    """By template, the one in which demonstrations of `owner` stand beside a question of `asked`: the same where it can
    place them, else the one in its place among the owner's own. None where both are one data set.

    Raises:
        ConfigError: the owner cannot be asked in that form.
    """
    if owner.name == asked.name:
        return None
    own = templates_for(owner, templates[0].form, role="belief" if templates[0].role == "belief" else None)
    return {
        template.name: template if template.fields <= owner.fields else own[place % len(own)]
        for place, template in enumerate(templates)
    }
