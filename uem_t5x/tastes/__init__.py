"""What a user's taste is: the rating scale, the label rule, sentences, scores, baselines."""
