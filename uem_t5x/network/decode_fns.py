"""How answers are written: the macros DECODING and NUM_BEAMS."""

from collections.abc import Callable
from typing import Any

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network.beam_search import beam_search
from uem_t5x.network.decoding import greedy_decode, temperature_sample

GREEDY, BEAM, SAMPLE = "greedy", "beam", "sample"
DecodeFn = Callable[..., Any]


def choose(
    decoding: str = GREEDY,
    num_beams: int = 1,
    greedy: DecodeFn = greedy_decode,
    beam: DecodeFn = beam_search,
    sample: DecodeFn = temperature_sample,
) -> DecodeFn:
    """Returns a `decode_fn` by name.

    Args:
      decoding: `greedy`, `beam` or `sample`.
      num_beams: of a beam search, whose width the model is told as `num_decodes`; 1 for others.
      greedy: what the first name stands for.
      beam: what the second name stands for.
      sample: what the third name stands for.

    Raises:
      InputError: if there is no such name, or the number of beams does not belong to it.
    """
    check_at_least(1, NUM_BEAMS=num_beams)
    functions = {GREEDY: greedy, BEAM: beam, SAMPLE: sample}
    if decoding not in functions:
        raise InputError(f"DECODING={decoding!r}: choose one of {', '.join(map(repr, functions))}")
    if decoding == BEAM and num_beams == 1:
        raise InputError(
            f"NUM_BEAMS=1: one beam is greedy; bind it to 2 or more, or DECODING to {GREEDY!r}"
        )
    if decoding != BEAM and num_beams != 1:
        raise InputError(
            f"NUM_BEAMS={num_beams}: DECODING={decoding!r} has no beams; bind it to {BEAM!r}"
        )
    return functions[decoding]
