"""From examples to prompts: templates, formats, demonstrations and system prompts under truth and lie."""

from adapterprobe.elicit.demos import DemoSet, draw_demo_sets
from adapterprobe.elicit.formats import check_format, format_names, render
from adapterprobe.elicit.prompts import belief_prompts, make_prompts
from adapterprobe.elicit.system import SystemPrompt, system_prompts, systems_for
from adapterprobe.elicit.templates import TEMPLATES, Template, templates_for

__all__ = [
    "TEMPLATES",
    "DemoSet",
    "SystemPrompt",
    "Template",
    "belief_prompts",
    "check_format",
    "draw_demo_sets",
    "format_names",
    "make_prompts",
    "render",
    "system_prompts",
    "systems_for",
    "templates_for",
]
