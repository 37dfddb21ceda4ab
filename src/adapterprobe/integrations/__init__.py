"""Other people's tools over our stages: one thin file each, each an extra."""
