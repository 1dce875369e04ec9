import pytest
import sentencepiece
from encoder_texts import TEXTS


@pytest.fixture(scope="session")
def spiece(tmp_path_factory):
    """A SentencePiece model as T5's are: 0 pads, 1 ends, 2 is unknown."""
    path = tmp_path_factory.mktemp("spiece") / "spiece.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 20),
            model_writer=file,
            vocab_size=120,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    return path


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UEM_T5X_CACHE", str(tmp_path / "cache"))
