"""MLflow, in one module, and what it is told: runs, metrics, models, also when it is away."""
