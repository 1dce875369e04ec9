"""Runs of recipes: what a recipe says, what a MODEL_DIR holds, and many of them after another."""
