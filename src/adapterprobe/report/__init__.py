"""Reports of a run: one self-contained HTML file, Markdown, and figures. Everything is read from its folder."""

from adapterprobe.report.write import write_report

__all__ = ["write_report"]
