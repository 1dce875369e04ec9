"""What one would use instead: Transformers' T5 1.1 and `torch.nn.TransformerEncoder`.

The same work as ours at the same sizes: item vectors looked up by id, a Transformer over them, a
projection, learned task prompts before the text. Weights are float32; bfloat16 is autocast's.
"""

import contextlib
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from benchmarks import sizes as sizes_lib
from benchmarks import timing
from benchmarks.sizes import Sizes
from uem_t5x.network.types import Batch

if TYPE_CHECKING:
    import transformers

# Why there is no peer, where Transformers is not installed; ours is measured alone then.
MISSING = None if importlib.util.find_spec("transformers") else "Transformers is not installed"
_T5_OPTIONS = {
    "d_kv": sizes_lib.HEAD_DIM,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "eos_token_id": None,  # no answer ends, so that all are written in full
}


def set_up(accelerator: bool) -> torch.device:
    """Gives PyTorch the threads that XLA has, or the accelerator; returns its device."""
    torch.manual_seed(0)
    torch.set_num_threads(timing.THREADS)
    if accelerator:
        torch.set_float32_matmul_precision("high")  # TF32, as XLA does by default
    return torch.device("cuda" if accelerator else "cpu")


def tensors(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """Returns the features that `PersonalizedT5` reads."""
    names = {
        "encoder_input_tokens": "input_ids",
        "decoder_target_tokens": "labels",
        "history_items": "items",
        "history_ratings": "ratings",
    }
    return {
        name: torch.from_numpy(batch[feature].astype(np.int64)).to(device)
        for feature, name in names.items()
    }


class PersonalizedT5(nn.Module):
    """A T5 that reads task prompts, a token an item, and the text."""

    def __init__(
        self, sizes: Sizes, item_table: Mapping[str, np.ndarray], dtype: str = "float32"
    ) -> None:
        """Draws parameters.

        Args:
            sizes: of the networks.
            item_table: the vectors of each channel.
            dtype: of activations.
        """
        import transformers

        super().__init__()
        self._targets = sizes.targets
        self._dtype = getattr(torch, dtype)
        self._kinds = {channel.name: channel.index for channel in sizes.channels}
        for name, vectors in item_table.items():
            scaled = vectors * np.sqrt(vectors.shape[1], dtype=np.float32)  # entries of about 1
            self.register_buffer(f"table_{name}", torch.from_numpy(scaled))
        self.user_embedding = _user_embedding(sizes)
        self.projection = nn.Linear(sizes.item_width, sizes.width, bias=False)
        self.task_prompt = nn.Parameter(torch.randn(sizes.prompts, sizes.width))
        self.language_model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(
                vocab_size=sizes.vocabulary,
                d_model=sizes.width,
                d_ff=sizes.mlp,
                num_layers=sizes.layers,
                num_heads=sizes.heads,
                **_T5_OPTIONS,
            )
        )
        # T5 1.1's own; Transformers 5 ties it to the embedding, whatever the configuration says.
        self.language_model.lm_head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)

    def count_parameters(self) -> int:
        """Counts the weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        items: torch.Tensor,
        ratings: torch.Tensor,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the loss."""
        with self._autocast(items.device):
            embeddings, mask = self._embed(items, ratings, input_ids)
            return self.language_model(
                inputs_embeds=embeddings, attention_mask=mask, labels=labels, use_cache=False
            ).loss

    @torch.inference_mode()
    def generate(
        self,
        items: torch.Tensor,
        ratings: torch.Tensor,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Writes answers of full length, greedily; returns [batch, targets] token ids."""
        del labels
        with self._autocast(items.device):
            embeddings, mask = self._embed(items, ratings, input_ids)
            tokens = self.language_model.generate(
                inputs_embeds=embeddings,
                attention_mask=mask,
                max_new_tokens=self._targets,
                do_sample=False,
                num_beams=1,
            )[:, 1:]
        if tokens.shape[1] != self._targets:
            raise RuntimeError(f"{tokens.shape[1]} tokens were written, not {self._targets}")
        return tokens.cpu().numpy()

    def _embed(
        self, items: torch.Tensor, ratings: torch.Tensor, input_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = {"item": items, "rating": ratings}
        vectors = torch.cat(
            [
                nn.functional.embedding(rows[kind], getattr(self, f"table_{name}"))
                for name, kind in self._kinds.items()
            ],
            dim=-1,
        )
        present = items > 0
        history = self.projection(self.user_embedding(vectors, present))
        prompt = self.task_prompt.to(history.dtype).expand(len(items), -1, -1)
        text = self.language_model.get_input_embeddings()(input_ids)
        embeddings = torch.cat([prompt, history, text.to(history.dtype)], dim=1)
        prompt_mask = present.new_ones(prompt.shape[:2])
        mask = torch.cat([prompt_mask, present, input_ids > 0], dim=1)
        return embeddings, mask.long()

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        if self._dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self._dtype)


def t5_encoder(width: int, heads: int, mlp: int, layers: int) -> "transformers.T5EncoderModel":
    """Returns Transformers' T5 encoder, to be given embeddings."""
    import transformers

    return transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=1, d_model=width, d_ff=mlp, num_layers=layers, num_heads=heads, **_T5_OPTIONS
        )
    )


class _TorchEncoder(nn.Module):
    """`torch.nn.TransformerEncoder`, whose heads add up to its width."""

    def __init__(self, sizes: Sizes) -> None:

        super().__init__()
        layer = nn.TransformerEncoderLayer(
            sizes.item_width,
            sizes.uem_heads,
            # Two matrices for a gated block's three: as many parameters and FLOPs.
            dim_feedforward=sizes.uem_mlp * 3 // 2,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            bias=False,
        )
        norm = nn.LayerNorm(sizes.item_width, bias=False)
        self.encoder = nn.TransformerEncoder(
            layer, sizes.uem_layers, norm, enable_nested_tensor=False
        )

    def forward(self, vectors: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return self.encoder(vectors, src_key_padding_mask=~present)


class _T5Encoder(nn.Module):
    """Transformers' encoder, for heads that are together narrower than the item vectors."""

    def __init__(self, sizes: Sizes) -> None:

        super().__init__()
        self.encoder = t5_encoder(
            sizes.item_width, sizes.uem_heads, sizes.uem_mlp, sizes.uem_layers
        )

    def forward(self, vectors: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        mask = present.long()
        return self.encoder(inputs_embeds=vectors, attention_mask=mask).last_hidden_state


def _user_embedding(sizes: Sizes) -> nn.Module:
    heads_width = sizes.uem_heads * sizes_lib.HEAD_DIM
    return (_TorchEncoder if heads_width == sizes.item_width else _T5Encoder)(sizes)
