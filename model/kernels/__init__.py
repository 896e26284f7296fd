"""Fast arithmetic as custom operators, each one node to `torch.compile`; `model.layers` has the formulas."""
