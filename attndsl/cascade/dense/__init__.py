"""Dense evaluation of cascades with PyTorch: what `cascade.interpreter` is made of."""
