"""The network, of JAX and Flax alone: T5, soft prompts, the item table, decoding, losses, FLOPs."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from uem_t5x.network.adapters import Adapter
    from uem_t5x.network.config import (
        FULL,
        LOCAL,
        REMAT_POLICIES,
        TRANSIENT_GLOBAL,
        T5Config,
        t5_1_1,
    )
    from uem_t5x.network.parameters import LANGUAGE_MODEL
    from uem_t5x.network.soft_prompt import SoftPrompt, SoftPromptModule
    from uem_t5x.network.transformer import Decoder, Encoded, Encoder, Transformer
