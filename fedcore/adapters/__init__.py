"""Models behind one protocol: `model` says what one is, `trained` carries one with all it needs."""
