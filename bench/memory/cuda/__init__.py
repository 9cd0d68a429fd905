"""CUDA's caching allocator and autocast, modelled on a machine without a GPU."""
