"""A page that draws shapes in a browser: the network as ONNX, the move tables as JSON, and what interprets them."""
