"""What a client does: `client.answer` is its whole behaviour."""
