"""Adapters to other people's libraries: each imports its library, the core never does."""
