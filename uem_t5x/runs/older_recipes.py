"""Recipes that older versions have recorded: modules and classes by the names they have now."""

import re

# Modules that stood in one folder, by the rooms that they stand in now.
_ROOMS = {
    "answer_grammar": "inputs",
    "checkpoint_manager": "training",
    "data_sources": "inputs",
    "decoding": "network",
    "feature_converters": "inputs",
    "layers": "network",
    "learning_rates": "training",
    "long_attention": "network",
    "metrics": "tastes",
    "partitioning": "training",
    "postprocessors": "inputs",
    "preprocessors": "inputs",
    "trainer": "training",
    "user_embedding": "network",
    "validation": "training",
    "vocabularies": "inputs",
}
_IMPORT = re.compile(r"^from uem_t5x import (\w+)(?= as |$)", re.MULTILINE)
# A network of its own once, of which the soft prompt is left.
_PERSONALIZED = "user_embedding.PersonalizedTransformer"
_SINCE_PERSONALIZED = {
    rf"^{_PERSONALIZED}\.config\b": "network.Transformer.config",
    rf"^{_PERSONALIZED}\.user_embedding_config\b": "user_embedding.UserPrompt.config",
    rf"^{_PERSONALIZED}\.": "user_embedding.UserPrompt.",
    rf"@{_PERSONALIZED}\(\)": "@network.Transformer()",
    r"@user_embedding\.channels\(\)": "@data_sources.channels()",
}
_SOFT_PROMPT = "network.Transformer.soft_prompt = @user_embedding.UserPrompt()\n"
_IMPORTED = ("from uem_t5x import network\n", "from uem_t5x.inputs import data_sources\n")


def moved(module: str) -> str | None:
    """Returns the name that a module, such as `uem_t5x.metrics`, has now; None for the same."""
    package, _, name = module.rpartition(".")
    return f"{package}.{_ROOMS[name]}.{name}" if package == "uem_t5x" and name in _ROOMS else None


def modernized(text: str) -> str:
    """Returns a recipe that was recorded, by gin's own hand, in the names of this version."""
    text = _IMPORT.sub(lambda found: _import(found[1]), text)
    if f"@{_PERSONALIZED}()" not in text:
        return text
    for old, new in _SINCE_PERSONALIZED.items():
        text = re.sub(old, new, text, flags=re.MULTILINE)
    first, _, rest = text.partition("\n")
    imports = "".join(line for line in _IMPORTED if line not in text)
    return f"{first}\n{imports}{rest.rstrip()}\n{_SOFT_PROMPT}"


def _import(module: str) -> str:
    return f"from uem_t5x{f'.{_ROOMS[module]}' if module in _ROOMS else ''} import {module}"
