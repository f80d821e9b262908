"""Training of cells: deterministic, resumable to the bit, on the training and validation patients only."""

from lib.training.trainer import train_cell

__all__ = ["train_cell"]
