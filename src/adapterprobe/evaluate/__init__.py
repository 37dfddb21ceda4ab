"""Metrics, intervals, verdicts and controls. It sees scores, and never learns what produced them."""
