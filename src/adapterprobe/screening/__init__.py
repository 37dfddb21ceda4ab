"""Is a model fit for the experiment, and asked in which way? A grid of cells, and its page."""
