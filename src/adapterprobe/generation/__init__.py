"""Replies in the model's own words: what is asked, what was said, whether it was held true."""
