"""Built-in data: behaviour policies, their ladders and the collection of data."""
