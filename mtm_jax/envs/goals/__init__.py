"""Goals: states to pass through, as data, and tasks that are made of them."""
