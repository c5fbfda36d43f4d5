"""Methods measured on the learned models: samplers, baselines, verdicts, comparisons, studies."""
