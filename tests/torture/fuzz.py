"""Coverage-guided fuzzing: `python tests/torture/fuzz.py TARGET FOLDER [libFuzzer's options]`.

The targets are those of `fuzz_targets.ALL`. FOLDER is an empty one: it gets what was found to
be interesting, and `crash-*` if something is wrong. Such a file can be given instead of options.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["uem_t5x", "fuzz_targets", "zipfile", "csv"]):
    import fuzz_targets

LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192"]


def main() -> None:
    """Runs one target."""
    _, name, root, *options = sys.argv
    target, seeds = fuzz_targets.ALL[name]
    fuzz_targets.FOLDER = Path(root) / "files"
    corpus = Path(root) / "corpus"
    for path in (fuzz_targets.FOLDER, corpus):
        path.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    tokens = Path(root) / "tokens"
    quoted = ("".join(f"\\x{byte:02x}" for byte in token) for token in fuzz_targets.TOKENS)
    tokens.write_text("".join(f'"{token}"\n' for token in quoted))
    where = [f"-dict={tokens}", f"-artifact_prefix={root}/"]
    inputs = [] if any(not option.startswith("-") for option in options) else [str(corpus)]
    atheris.Setup([sys.argv[0], *LIMITS, *where, *options, *inputs], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
