"""Writes `huggingface_t5/` and `huggingface_t5.npz`: see README.md.

Needs PyTorch and Transformers: python tests/golden/make_huggingface.py
"""

from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

GOLDEN = Path(__file__).parent
FOLDER = GOLDEN / "huggingface_t5"


def make_model() -> T5ForConditionalGeneration:
    """Returns a random T5 1.1 whose every parameter matters to the logits."""
    config = T5Config(
        vocab_size=64,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).eval()
    # Transformers 5 ties the output layer of every fresh T5.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 16))
    with torch.no_grad():
        # A fresh T5's norms are all 1, and its biases small: neither would show in the logits.
        for name, parameter in model.named_parameters():
            if "layer_norm" in name or "relative_attention_bias" in name:
                parameter.normal_(mean=1.0, std=0.5)
    return model


def main() -> None:
    """Writes the checkpoint, a batch and its logits."""
    torch.manual_seed(0)
    model = make_model()
    model.save_pretrained(FOLDER)

    # 150 tokens reach every bucket of the relative positions; the second row is mostly padding.
    encoder_inputs = torch.randint(2, 64, (2, 150))
    encoder_inputs[1, 12:] = 0
    targets = torch.randint(2, 64, (2, 9))
    with torch.no_grad():
        # Given labels, Transformers shifts them right to make the decoder's inputs.
        logits = model(
            input_ids=encoder_inputs, attention_mask=(encoder_inputs > 0).long(), labels=targets
        ).logits
    np.savez_compressed(
        GOLDEN / "huggingface_t5.npz",
        encoder_input_tokens=encoder_inputs.numpy().astype(np.int32),
        decoder_target_tokens=targets.numpy().astype(np.int32),
        logits=logits.numpy(),
    )


if __name__ == "__main__":
    main()
