"""SeqIO's side: from a dataset folder to a model's batches, and from its answers back."""
