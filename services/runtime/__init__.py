"""The loop that all four services share: worker, broker, store, dead letters, settings, metrics."""
