"""From examples to prompts: templates, formats, demonstrations under truth and lie."""

from adapterprobe.elicit.demos import DemoSet, draw_demo_sets
from adapterprobe.elicit.formats import FORMATS, render
from adapterprobe.elicit.prompts import belief_prompts, make_prompts
from adapterprobe.elicit.templates import TEMPLATES, Template, templates_for

__all__ = [
    "FORMATS",
    "TEMPLATES",
    "DemoSet",
    "Template",
    "belief_prompts",
    "draw_demo_sets",
    "make_prompts",
    "render",
    "templates_for",
]
