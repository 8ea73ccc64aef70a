"""What a network that is not trained makes of each sample, computed once and kept on disk: features of a frozen body, logits of a teacher."""
