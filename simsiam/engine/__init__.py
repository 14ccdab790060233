"""How anything is trained: the loop, optimisers, schedules, checkpoints, logs. Knows no task."""
