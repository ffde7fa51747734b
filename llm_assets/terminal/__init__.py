"""What the command line draws - progress bars, plan, scorecard, lineage - and the commands of an audit."""
