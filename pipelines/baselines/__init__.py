"""Recognition without a network: hand-made descriptors, a vocabulary learned from them, a vector of each image."""
