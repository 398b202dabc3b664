"""Real servers for tests: PostgreSQL and NATS, whose programs come as wheels."""
