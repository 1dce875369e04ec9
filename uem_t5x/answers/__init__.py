"""A trained model: asked, scored, handed on."""
