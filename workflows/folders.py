"""Names of what training and evaluation write, for those who look for it."""

CHECKPOINTS = "checkpoints"
MODELS = {"last": "model", "best": "best"}  # by the weights in them, as `evaluate.weights` calls them
PROBABILITIES = "probabilities.parquet"  # of all classes, where an evaluation kept them; a baseline always does
