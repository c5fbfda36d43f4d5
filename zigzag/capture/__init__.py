"""A path as a table on the device, and its steps as CUDA graphs."""
