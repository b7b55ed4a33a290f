"""A real Apache Kafka and a real Valkey as child processes: no Docker, no root, no installation."""
