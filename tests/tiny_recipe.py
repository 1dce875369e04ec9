"""A recipe and what makes it small: for tests of training, which need no good model."""

RECIPE = "gin/uem_tiny.gin"
NETWORK = [
    "UEM_LAYERS = 1",
    "network.T5Config.emb_dim = 16",
    "network.T5Config.mlp_dim = 16",
    "network.T5Config.num_heads = 2",
    "network.T5Config.head_dim = 8",
    "user_embedding.UserEmbeddingConfig.num_heads = 2",
    "user_embedding.UserEmbeddingConfig.head_dim = 8",
    "user_embedding.UserEmbeddingConfig.mlp_dim = 16",
]
BINDINGS = [
    *NETWORK,
    "HISTORY_LENGTH = 20",
    "BATCH_SIZE = 16",
    "EVAL_STEPS = 1",
    "STATS_PERIOD = 2",
    "CHECKPOINTS_KEPT = 2",
    "DROPOUT_RATE = 0.1",
    "DECAY_STEPS = 0",  # a run that goes on for longer has taken the same steps until then
]


def places(model_dir, data_dir):
    """Returns the bindings of where a run writes and reads."""
    return [f"MODEL_DIR = {str(model_dir)!r}", f"DATA_DIR = {str(data_dir)!r}"]
