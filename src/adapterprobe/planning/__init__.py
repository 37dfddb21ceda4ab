"""What a run will take: memory by part, time by stage, tried out before it starts."""
