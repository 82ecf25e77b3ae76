"""A finished classifier for other runtimes: ONNX and torch.export, checked against the bundle on real images."""
