"""Shipped run configurations."""
