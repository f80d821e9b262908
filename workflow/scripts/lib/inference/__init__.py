"""From trained weights to label maps of the test cases."""

from lib.inference.predict import predict_cell

__all__ = ["predict_cell"]
