"""An arm of the comparison, fitted: features, search, a model's own answer; a finished run's detectors on new prompts."""
