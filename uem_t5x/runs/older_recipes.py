"""Recipes that older versions have recorded: modules and classes by the names they have now."""

import re

# Modules that stood in one folder, by where they stand now.
_MODULES = {
    "answer_grammar": "inputs.answer_grammar",
    "checkpoint_manager": "training.checkpoint_manager",
    "data_sources": "inputs.data_sources",
    "datasets": "inputs.batches",
    "decoding": "network.decoding",
    "feature_converters": "inputs.feature_converters",
    "infer": "training.predictor",
    "layer_stacks": "training.optimizers",  # of it a recipe can bind `over_layers`
    "layers": "network.layers",
    "learning_rates": "training.learning_rates",
    "long_attention": "network.long_attention",
    "metrics": "inputs.metrics",
    "partitioning": "training.partitioning",
    "postprocessors": "inputs.postprocessors",
    "preprocessors": "inputs.preprocessors",
    "trainer": "training.trainer",
    "user_embedding": "network.user_embedding",
    "validation": "training.validation",
    "vocabularies": "inputs.vocabularies",
}
_IMPORT = re.compile(r"^from uem_t5x import (\w+)( as \w+)?$", re.MULTILINE)
# A network of its own once, of which the soft prompt is left.
_PERSONALIZED = "user_embedding.PersonalizedTransformer"
_SINCE_PERSONALIZED = {
    rf"^{_PERSONALIZED}\.config\b": "network.Transformer.config",
    rf"^{_PERSONALIZED}\.user_embedding_config\b": "user_embedding.UserPrompt.config",
    rf"^{_PERSONALIZED}\.": "user_embedding.UserPrompt.",
    rf"@{_PERSONALIZED}\(\)": "@network.Transformer()",
    r"@user_embedding\.channels\(\)": "@data_sources.channels()",
}
# What a recipe of a user's own may still name, and what it binds instead.
GONE = {
    _PERSONALIZED: "user_embedding.UserPrompt, as gin/models/uem.gin does",
    "user_embedding.channels": "data_sources.channels, of uem_t5x.inputs",
}
_SOFT_PROMPT = "network.Transformer.soft_prompt = @user_embedding.UserPrompt()\n"
_IMPORTED = ("from uem_t5x import network\n", "from uem_t5x.inputs import data_sources\n")


def import_line(module: str, alias: str = "") -> str | None:
    """Returns the line that imports a module where it stands now, under the name that it had.

    Args:
      module: its name of before, such as `uem_t5x.datasets`.
      alias: ` as NAME`, where the line has one.

    Returns:
      None if it stands where it stood.
    """
    package, _, name = module.rpartition(".")
    if package != "uem_t5x" or name not in _MODULES:
        return None
    room, _, name_now = _MODULES[name].rpartition(".")
    alias = alias or (f" as {name}" if name_now != name else "")
    return f"from uem_t5x.{room} import {name_now}{alias}"


def modernized(text: str) -> str:
    """Returns a recipe that was recorded, by gin's own hand, in the names of this version."""
    text = _IMPORT.sub(_where_it_stands, text)
    if f"@{_PERSONALIZED}()" not in text:
        return text
    for old, new in _SINCE_PERSONALIZED.items():
        text = re.sub(old, new, text, flags=re.MULTILINE)
    first, _, rest = text.partition("\n")
    imports = "".join(line for line in _IMPORTED if line not in text)
    return f"{first}\n{imports}{rest.rstrip()}\n{_SOFT_PROMPT}"


def _where_it_stands(line: re.Match[str]) -> str:
    return import_line(f"uem_t5x.{line[1]}", line[2] or "") or line[0]
