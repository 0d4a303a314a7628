"""Multigrid Neural Architectures (Ke, Maire, Yu, CVPR 2017) in PyTorch."""
