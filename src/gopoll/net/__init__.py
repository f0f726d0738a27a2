"""Go's net package: addresses, dialling, listening, connections and buffered readers."""
