"""Files for devices: ONNX, compared with PyTorch before they are written."""
