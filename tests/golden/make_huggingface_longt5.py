"""Writes `huggingface_longt5_*/` and `huggingface_longt5.npz`: see README.md.

Needs PyTorch and Transformers: python tests/golden/make_huggingface_longt5.py
"""

from pathlib import Path

import numpy as np
import torch
from transformers import LongT5Config, LongT5ForConditionalGeneration

GOLDEN = Path(__file__).parent
# Less than a block and than a summary, a whole block, and many of both, even and not.
LENGTHS = (3, 10, 57, 160)


def make_model(encoder_attention_type: str) -> LongT5ForConditionalGeneration:
    """Returns a random LongT5 whose every parameter matters to the logits."""
    config = LongT5Config(
        vocab_size=64,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=3,
        local_radius=9,
        global_block_size=4,
        encoder_attention_type=encoder_attention_type,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = LongT5ForConditionalGeneration(config).eval()
    # Transformers 5 ties the output layer of every fresh LongT5.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 16))
    with torch.no_grad():
        # Fresh norms are all 1, and biases small: neither would show in the logits.
        for name, parameter in model.named_parameters():
            if "layer_norm" in name or "relative_attention_bias" in name:
                parameter.normal_(mean=1.0, std=0.5)
    return model


def make_inputs(length: int) -> torch.Tensor:
    """Returns a whole text, one that ends within a summary, and one too short for a summary."""
    inputs = torch.randint(2, 64, (3, length))
    inputs[1, max(1, length - 6) :] = 0
    inputs[2, min(2, length) :] = 0
    return inputs


def main() -> None:
    """Writes both checkpoints, batches and their logits."""
    torch.manual_seed(0)
    targets = torch.randint(2, 64, (3, 5))
    batches = {length: make_inputs(length) for length in LENGTHS}
    arrays = {f"encoder_input_tokens_{length}": batch for length, batch in batches.items()}
    arrays["decoder_target_tokens"] = targets
    arrays = {name: tokens.numpy().astype(np.int32) for name, tokens in arrays.items()}
    for kind in ("local", "transient_global"):
        model = make_model(kind.replace("_", "-"))
        model.save_pretrained(GOLDEN / f"huggingface_longt5_{kind}")
        for length, inputs in batches.items():
            with torch.no_grad():
                # Given labels, Transformers shifts them right to make the decoder's inputs.
                logits = model(
                    input_ids=inputs, attention_mask=(inputs > 0).long(), labels=targets
                ).logits
            arrays[f"{kind}_logits_{length}"] = logits.numpy()
    np.savez_compressed(GOLDEN / "huggingface_longt5.npz", **arrays)


if __name__ == "__main__":
    main()
