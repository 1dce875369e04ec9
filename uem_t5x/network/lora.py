"""LoRA: what training adds to a frozen linear map, in two thin matrices.

    W x + (alpha / rank) B A x        A at random, B zero at the start

(arXiv 2106.09685, section 4.1.) `layers.Dense` holds `lora_a`, A transposed, and `lora_b`, B
transposed, beside its `kernel`, with that one's logical axes.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import traverse_util

from uem_t5x.base.errors import InputError, check_at_least
from uem_t5x.network.types import PyTree

A, B = "lora_a", "lora_b"
QUERY_AND_VALUE = ("query", "value")
# The linear maps of a T5, by T5X's names.
_ATTENTIONS = ("attention", "self_attention", "encoder_decoder_attention")
_OF_ATTENTION, _OF_MLP = ("query", "key", "value", "out"), ("wi", "wi_0", "wi_1", "wo")
TARGETS = (
    *_OF_ATTENTION,
    *(f"{attention}/{name}" for attention in _ATTENTIONS for name in _OF_ATTENTION),
    *_OF_MLP,
    "logits_dense",
)
_PARAMETER = re.compile(rf"(?:.*/)?(?:{A}|{B})")


@dataclasses.dataclass(frozen=True)
class LoRA:
    """What is added to which linear maps of a language model.

    Attributes:
      rank: columns of A's and rows of B's transpose.
      alpha: alpha / rank multiplies what is added; None for the rank, which makes it 1.
      targets: names of linear maps, such as `query`, or `encoder_decoder_attention/query` for those
        of one kind of attention.
      dropout_rate: of what A reads, while training.
    """

    rank: int
    alpha: float | int | None = None
    targets: Sequence[str] = QUERY_AND_VALUE
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(1, none_for="no LoRA", LORA_RANK=self.rank)
        if self.alpha is not None and not self.alpha > 0:
            raise InputError(f"LORA_ALPHA={self.alpha}: bind it above 0, or to None for LORA_RANK")
        if not 0 <= self.dropout_rate < 1:
            raise InputError(f"LORA_DROPOUT={self.dropout_rate}: bind it to 0.0 or more, below 1.0")
        if isinstance(self.targets, str) or not self.targets:
            raise InputError(
                f"LORA_TARGETS={self.targets!r}: bind it to names of layers, such as "
                f"{list(QUERY_AND_VALUE)}"
            )
        for target in self.targets:
            if target not in TARGETS:
                raise InputError(
                    f"LORA_TARGETS: {target!r} names no layer; choose among {', '.join(TARGETS)}"
                )
        object.__setattr__(self, "targets", tuple(self.targets))  # gin's lists cannot be hashed

    @property
    def scale(self) -> float:
        """What multiplies B A x."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def is_for(self, path: Sequence[str]) -> bool:
        """Tells whether it adds to the linear map of a path, such as `(..., "query")`."""
        return not {"/".join(path[-1:]), "/".join(path[-2:])}.isdisjoint(self.targets)


def of_macros(
    rank: int | None = None,
    alpha: float | int | None = None,
    targets: Sequence[str] = QUERY_AND_VALUE,
    dropout_rate: float = 0.0,
) -> LoRA | None:
    """Returns what a recipe's macros say: LoRA, or None where there is no `rank`.

    Args:
      rank: see `LoRA`, as are the others.
      alpha: see above.
      targets: see above.
      dropout_rate: see above.

    Raises:
      InputError: if they make no sense, or there is no rank that they were of.
    """
    if rank is not None:
        return LoRA(rank, alpha, targets, dropout_rate)
    if alpha is not None or dropout_rate:
        name, value = ("LORA_ALPHA", alpha) if alpha is not None else ("LORA_DROPOUT", dropout_rate)
        raise InputError(f"{name}={value}: there is no LoRA (LORA_RANK=None); bind LORA_RANK")
    return None


def is_lora(path: str) -> bool:
    """Tells LoRA's parameters, by "/"-joined path, from all others."""
    return _PARAMETER.fullmatch(path) is not None


def is_b(path: str) -> bool:
    """Tells the matrices that start at zero, by "/"-joined path."""
    return is_lora(path) and path.endswith(B)


def merge(params: PyTree, lora: LoRA | None) -> PyTree:
    """Returns parameters without LoRA's own, which are added to the kernels: W + scale A B.

    Args:
      params: nested dictionaries, layers one by one or stacked.
      lora: None to return `params`.
    """
    if lora is None:
        return params
    flat: Mapping[str, Any] = traverse_util.flatten_dict(dict(params), sep="/")
    merged = {path: leaf for path, leaf in flat.items() if not is_lora(path)}
    for path, a in flat.items():
        parent, _, name = path.rpartition("/")
        if name == A:
            kernel = f"{parent}/kernel"
            merged[kernel] = flat[kernel] + lora.scale * (a @ flat[f"{parent}/{B}"])
    return traverse_util.unflatten_dict(merged, sep="/")
