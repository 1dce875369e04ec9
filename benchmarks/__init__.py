"""Speed and memory, each figure beside that of a peer that was run in between.

    python -m benchmarks.training_step      a training step, against PyTorch and Transformers
    python -m benchmarks.generation         answers a second, against Transformers; the grammar
    python -m benchmarks.engine_overhead    the training loop, against its bare step
    python -m benchmarks.input_pipeline     users a second, against a loop in Python
    python -m benchmarks.preparing          from MovieLens to a dataset folder, against pandas
    python -m benchmarks.encoding           sentences a second, against Transformers
    python -m benchmarks.growth             what longer histories cost, as embeddings and as text

from the repository root; `--help` tells the options. The peers come with
`pip install -c constraints.txt -e '.[benchmarks]'`.

Machines are noisy, so the candidates take turns (A B A B ...) in one process, and a ratio is that
of figures from the same minutes. What a person may watch goes to standard error; standard output is
one line of JSON:

    benchmark, sizes    what was run
    machine             CPU, cores (threads of either side), load before, accelerator, versions
    ours, peers         seconds of a turn: median, minimum, and median of CPU seconds, all threads
    ratios              ours to each peer: of the medians, of the minima
    bounds, holds       what the figures are held to, and whether all of it holds
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# On a GPU, PyTorch needs memory beside JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
