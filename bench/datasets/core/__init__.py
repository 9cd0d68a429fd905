"""The machinery that datasets share: decoding, masks, the cache on disk, the catalogue. No file here is an entry."""
