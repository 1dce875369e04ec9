"""Sentences a second of an encoder of SentenceT5's size: ours against Transformers'.

SentenceT5 itself is a SavedModel that has to be downloaded. Its network is T5 base's encoder, 12
layers 768 wide, the mean over its positions and a projection: here with random weights, over
sentences of 64 tokens. For the paper's catalogue it runs 16,400 times: title and description of
each of 8,200 movies.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import linen as nn

from benchmarks import timing, torch_model
from uem_t5x import network
from uem_t5x.network import flops as model_flops

_WIDTH, _HEADS, _MLP = 768, 12, 2048
_CATALOGUE_SENTENCES = 2 * 8_200
_OURS, _PEER = "ours", "torch, transformers.T5EncoderModel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)


class _Encoder(nn.Module):
    config: network.T5Config

    @nn.compact
    def __call__(self, embeddings: jax.Array, mask: jax.Array) -> jax.Array:
        encoded = network.Encoder(self.config, name="encoder")(
            embeddings, mask, enable_dropout=False
        )
        weights = mask[..., None].astype(encoded.dtype)
        mean = jnp.sum(encoded * weights, axis=1) / jnp.sum(weights, axis=1)
        vectors = nn.Dense(self.config.emb_dim, use_bias=False, name="projection")(mean)
        return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


class _TorchEncoder(torch.nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.encoder = torch_model.t5_encoder(_WIDTH, _HEADS, _MLP, layers)
        self.projection = torch.nn.Linear(_WIDTH, _WIDTH, bias=False)

    @torch.inference_mode()
    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        encoded = self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(encoded.dtype)
        vectors = self.projection((encoded * weights).sum(1) / weights.sum(1))
        return torch.nn.functional.normalize(vectors).cpu()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Lets ours and the peer encode a batch in turns."""
    shape = (arguments.batch_size, arguments.tokens)
    embeddings = np.random.default_rng(0).standard_normal((*shape, _WIDTH), np.float32)
    mask = np.ones(shape, bool)
    config = network.T5Config(
        emb_dim=_WIDTH, num_heads=_HEADS, mlp_dim=_MLP, num_encoder_layers=arguments.layers
    )
    module = _Encoder(config)
    params = jax.jit(module.init)(jax.random.key(0), embeddings, mask)
    encode = jax.jit(module.apply)

    device = torch_model.set_up(jax.default_backend() == "gpu")
    peer = _TorchEncoder(arguments.layers).to(device).eval()
    tensors = [torch.from_numpy(array).to(device) for array in (embeddings, mask.astype(np.int64))]
    candidates = {
        _OURS: lambda: np.asarray(encode({"params": params["params"]}, embeddings, mask)),
        _PEER: lambda: peer(*tensors),
    }
    timings = timing.alternate(candidates, arguments.repeats)
    flops = arguments.batch_size * model_flops.encoder_flops(config, arguments.tokens)

    def figures(name: str) -> dict[str, float]:
        sentences_a_second = arguments.batch_size / timings[name].median
        return timings[name].figures() | {
            "sentences_a_second": sentences_a_second,
            "catalogue_minutes": _CATALOGUE_SENTENCES / sentences_a_second / 60,
            "tflops": flops / timings[name].median / 1e12,
        }

    ratio = timing.ratio(timings[_OURS], timings[_PEER])
    return {
        "sizes": {"width": _WIDTH, "heads": _HEADS, "mlp": _MLP, **_sizes(arguments)},
        "torch_threads": torch.get_num_threads(),
        "ours": figures(_OURS),
        "peers": {_PEER: figures(_PEER)},
        "ratios": {_PEER: ratio},
        "bounds": [
            timing.bound("seconds to those of torch, medians", ratio["of_medians"], at_most=1.0)
        ],
    }


def _sizes(arguments: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(arguments, name) for name in ("layers", "tokens", "batch_size")}


if __name__ == "__main__":
    timing.main("encoding", __doc__, add_arguments, measure)
