"""The papers' studies, on the learned models."""
