"""SeqIO registry modules; importing one registers its tasks."""
