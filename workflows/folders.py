"""Names of the folders that training writes, for those who look into them."""

CHECKPOINTS = "checkpoints"
MODELS = {"last": "model", "best": "best"}  # by the weights in them, as `evaluate.weights` calls them
