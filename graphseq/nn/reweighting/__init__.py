"""Sample weights, feature queues and the outer problems that learn weights."""
