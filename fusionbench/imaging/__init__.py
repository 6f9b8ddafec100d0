"""Imaging: from NIfTI files to tensors, and how training moves them."""
