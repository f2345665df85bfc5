"""Downloads that are resumed, checked, and named only when they are whole."""
