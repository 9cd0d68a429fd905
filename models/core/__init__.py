"""The machinery that entries share: the registry, placement, weights, frozen layers. No file here is an entry."""
