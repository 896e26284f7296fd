"""The workflow: the only place that knows Ray, MLflow, argv and run folders."""
