"""The functional path: what a model computes under a policy's decisions."""
