"""Everything that turns a network and stimuli into an activation store."""
