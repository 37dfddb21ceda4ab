"""From examples to prompts: templates, formats, demonstrations and system prompts under truth and lie."""

from adapterprobe.elicit.demos import DemoSet, draw_demo_sets
from adapterprobe.elicit.formats import check_format, format_names, render
from adapterprobe.elicit.prompts import after_shared_words, belief_rounds, make_prompts
from adapterprobe.elicit.system import SystemPrompt, one_or_several, system_prompts, systems_for
from adapterprobe.elicit.templates import TEMPLATES, stand_ins, templates_for

__all__ = [
    "TEMPLATES",
    "DemoSet",
    "SystemPrompt",
    "after_shared_words",
    "belief_rounds",
    "check_format",
    "draw_demo_sets",
    "format_names",
    "make_prompts",
    "one_or_several",
    "render",
    "stand_ins",
    "system_prompts",
    "systems_for",
    "templates_for",
]
