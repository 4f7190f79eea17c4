"""The last traces, in the JSON of Jaeger's query API."""
