"""What the command line draws: progress bars, the plan, the scorecard."""
