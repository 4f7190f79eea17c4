"""Export: how spans leave the tape for a collector, the SDK, or the kept traces."""
