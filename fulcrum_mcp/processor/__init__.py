"""The event-processor: consume, store, verify, checkpoint."""
