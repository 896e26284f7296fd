"""The peers that `alexnet bench` measures against; they may import anything."""
