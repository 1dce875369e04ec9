"""The network, of JAX and Flax alone: T5, soft prompts, the item table, decoding, losses, FLOPs."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from uem_t5x.network.transformer import (
        FULL,
        LANGUAGE_MODEL,
        LOCAL,
        REMAT_POLICIES,
        TRANSIENT_GLOBAL,
        Decoder,
        Encoded,
        Encoder,
        SoftPrompt,
        T5Config,
        Transformer,
        t5_1_1,
    )
