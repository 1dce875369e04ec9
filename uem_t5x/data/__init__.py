"""Everything that happens before SeqIO: from MovieLens files to a dataset folder."""
