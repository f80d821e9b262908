"""Architecture search: the space of NAS-Unet's cells, the supernet over it, and its differentiable search (DARTS)."""
