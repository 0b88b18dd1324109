"""Examples on their way to the devices: corrupted, cropped, batched, streamed."""
