"""From examples to prompts: templates, formats, demonstrations and system prompts under truth and lie."""

from adapterprobe.prompts.few_shot import DemoSet, draw_demo_sets
from adapterprobe.prompts.formats import check_format, format_names, render
from adapterprobe.prompts.rendering import after_shared_words, belief_rounds, make_prompts
from adapterprobe.prompts.system_prompts import SystemPrompt, one_or_several, system_prompts, systems_for
from adapterprobe.prompts.templates import TEMPLATES, demo_templates, templates_for

__all__ = [
    "TEMPLATES",
    "DemoSet",
    "SystemPrompt",
    "after_shared_words",
    "belief_rounds",
    "check_format",
    "demo_templates",
    "draw_demo_sets",
    "format_names",
    "make_prompts",
    "one_or_several",
    "render",
    "system_prompts",
    "systems_for",
    "templates_for",
]
