"""Training in the built-in engine: the step, what it changes, and what is kept of it."""
